// The gateway's API as this page uses it. Addresses are relative, so the page works below a prefix.

const HOME = new URL(".", document.baseURI);
const KEY = "api-key";
// A picture to start from may have megabytes, and the way up be slow.
const PATIENCE_MS = 180_000;

/** An answer that is not what was asked for: a problem document (RFC 9457), or no answer at all. */
export class Problem extends Error {
  constructor(document, status = 0, retryAfter = null) {
    super(document.detail || "The gateway could not do this.");
    this.status = status;
    this.code = document.code || "";
    this.field = document.field || null;
    this.bound = document.bound || {};
    this.retryAfter = retryAfter;
  }

  /** What is wrong, for a person. */
  get sentence() {
    if (this.status === 0) return "The gateway does not answer. Check that it runs, then try again.";
    const soon = this.retryAfter ? ` Try again in about ${seconds(this.retryAfter)}.` : "";
    const wordings = {
      queue_full: "The queue is full.",
      rate_limited: "You are asking faster than this key may.",
      too_many_jobs: "You have as many unfinished pictures as this key may have.",
      body_too_large: "The picture you start from is too large.",
      unknown_model: "This model is not served any more.",
    };
    return (wordings[this.code] || `${sentence(this.message)}`) + soon;
  }

  /** What is wrong with the field, for the line below it. */
  get fieldSentence() {
    const { minimum, maximum, multiple_of: multiple, max_length: longest } = this.bound;
    if (multiple !== undefined) return `Must be a multiple of ${multiple}.`;
    if (minimum !== undefined && maximum !== undefined) return `Must be from ${minimum} to ${maximum}.`;
    if (minimum !== undefined) return `Must be at least ${minimum}.`;
    if (maximum !== undefined) return `Must be at most ${maximum}.`;
    if (longest !== undefined) return `Must have at most ${longest} characters.`;
    if (this.bound.min_length !== undefined) return "Must not be empty.";
    return sentence(this.message.replace(/^[\w.]+: /, ""));
  }
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** The answer's document; throws a Problem. */
export async function call(method, path, { json, form, headers = {} } = {}) {
  const response = await reach(path, {
    method,
    headers: { ...authorization(), ...(json && { "Content-Type": "application/json" }), ...headers },
    body: json ? written(json) : form,
  });
  const text = await response.text();
  const document = parsed(text);
  if (response.ok) return document;
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  throw new Problem(document || {}, response.status, retryAfter);
}

/** Keeps a job: one that was lost on the way is sent again, and is kept once. */
export async function submit(fields, image) {
  const headers = { "Idempotency-Key": unique() };
  const body = image ? { form: formOf(fields, image) } : { json: fields };
  try {
    return await call("POST", "generate", { ...body, headers });
  } catch (problem) {
    if (problem.status !== 0) throw problem;
    return call("POST", "generate", { ...body, headers });
  }
}

/** A stream of the job's events, its ticket in the address where a key is in use. */
export async function openEvents(job, after) {
  const address = new URL(`jobs/${job}/events`, HOME);
  if (hasKey()) {
    const { ticket } = await call("POST", "tickets", { json: { job_id: job } });
    address.searchParams.set("ticket", ticket);
  }
  if (after) address.searchParams.set("last_event_id", after);
  return new EventSource(address);
}

/** A picture's file: through the gateway, wherever its link leads. */
export async function picture(job, index) {
  const response = await reach(`jobs/${job}/images/${index}`, { headers: authorization() });
  if (!response.ok) throw new Problem({ detail: "The picture is not there any more." }, response.status);
  return response.blob();
}

export function parsed(text) {
  // Seeds may be larger than the numbers that JavaScript holds exactly; those stay text.
  const exact = text.replace(/("seed":\s*)(\d{16,})/g, '$1"$2"');
  try {
    return JSON.parse(exact);
  } catch {
    return null;
  }
}

function written(fields) {
  const { seed, ...others } = fields;
  const text = JSON.stringify(others);
  return seed === undefined ? text : `${text.slice(0, -1)},"seed":${seed}}`;
}

function formOf(fields, image) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, String(value));
  form.append("image", image, "image");
  return form;
}

async function reach(path, options) {
  try {
    return await fetch(new URL(path, HOME), { signal: AbortSignal.timeout(PATIENCE_MS), ...options });
  } catch {
    throw new Problem({});
  }
}

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function seconds(count) {
  if (count < 90) return `${Math.max(1, Math.round(count))} s`;
  return count < 5400 ? `${Math.round(count / 60)} min` : `${Math.round(count / 3600)} h`;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
