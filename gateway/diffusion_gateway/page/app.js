// The page: asks the gateway for pictures and shows what becomes of them.

import { Card, ended, promptOf, stateOf } from "./card.js";
import { call, hasKey, parsed, picture, setKey, submit } from "./client.js";
import { announce, byId, element } from "./dom.js";
import { Following } from "./following.js";
import { Settings } from "./settings.js";

const JOBS = "jobs";
const MOST_KEPT = 60;
const LOOK_AGAIN_MS = 4000;
const QUIET_MS = 15_000;

const settings = new Settings(byId("fields"));
const following = new Following(heard);
const cards = new Map();
let models = [];
let sending = false;
let spokenAt = 0;

// The model and the key.

async function start() {
  try {
    models = (await call("GET", "models")).models;
  } catch (problem) {
    if (problem.status === 401) return askForKey(hasKey() ? "The gateway does not know this key." : "");
    return later(problem.sentence);
  }
  byId("key-form").hidden = true;
  byId("key-button").hidden = !hasKey();
  if (models.length === 0) return later("No model is served yet. This page goes on looking.");
  byId("notice").hidden = true;
  offerModels();
  if (cards.size === 0) await restore();
}

function later(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = false;
  setTimeout(start, LOOK_AGAIN_MS);
}

function askForKey(error) {
  byId("ask").hidden = byId("notice").hidden = true;
  byId("key-form").hidden = false;
  byId("key-error").hidden = !error;
  byId("key-error").textContent = error;
  byId("key").setAttribute("aria-invalid", String(Boolean(error)));
  byId("key").focus();
}

function offerModels() {
  const choice = byId("model");
  choice.replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
  byId("model-choice").hidden = false;
  choice.value = (modelOf(settings.model?.name) || models[0]).name;
  settings.build(modelOf(choice.value));
  byId("ask").hidden = false;
}

function modelOf(name) {
  return models.find((model) => model.name === name);
}

byId("model").addEventListener("change", (event) => settings.build(modelOf(event.target.value)));

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(byId("key").value.trim());
  byId("key").value = "";
  start();
});

byId("key-button").addEventListener("click", () => {
  setKey(null);
  byId("key-button").hidden = true;
  askForKey("");
});

// Asking.

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || byId("ask").hidden || byId("viewer").open) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});

async function draw() {
  if (sending || !settings.check()) return;
  byId("ask-error").hidden = true;
  busy(true);
  try {
    const request = settings.request();
    const job = await submit(request, settings.image);
    keep({ ...job, request });
    announce(`Accepted. ${stateOf(job)}`);
    // Below the form, on a narrow screen, it would go unseen.
    cards.get(job.job_id).element.scrollIntoView({ block: "nearest" });
  } catch (problem) {
    complain(problem);
  } finally {
    busy(false);
  }
}

function busy(state) {
  sending = state;
  byId("draw").setAttribute("aria-disabled", String(state));
}

function complain(problem) {
  if (problem.status === 401) return askForKey(problem.sentence);
  if (problem.field && settings.mark(problem.field, problem.fieldSentence)) return;
  byId("ask-error").textContent = problem.sentence;
  byId("ask-error").hidden = false;
  if (problem.code === "unknown_model") start();
}

// Jobs.

function keep(job, atEnd = false) {
  const known = cards.get(job.job_id);
  if (known) {
    Object.assign(known.job, job);
    known.update();
    return;
  }
  const card = new Card(job, actions);
  cards.set(job.job_id, card);
  byId("empty").hidden = true;
  byId("cards")[atEnd ? "append" : "prepend"](card.element);
  if (!ended(job)) following.add(job.job_id);
  remember();
}

function heard(id, kind, document) {
  const card = cards.get(id);
  if (!card) return;
  if (kind === "gone") return remove(id);
  const before = card.job.status;
  // An event that comes late says nothing of a job that has ended.
  if (ended(card.job)) return;
  Object.assign(card.job, document, kind === "preview" ? { preview: document.url } : {});
  card.update();
  tell(card.job, before);
}

/** Tells screen readers: changes at once, progress now and then. */
function tell(job, before) {
  showInTitle();
  const now = Date.now();
  const changed = job.status !== before;
  if (!changed && now - spokenAt < QUIET_MS) return;
  spokenAt = now;
  const count = job.images?.length || 0;
  const done = `Done: ${count === 1 ? "one picture" : `${count} pictures`}`;
  announce(`${promptOf(job)}: ${job.status === "completed" ? done : stateOf(job)}`);
}

function showInTitle() {
  const running = [...cards.values()].map((card) => card.job).filter((job) => !ended(job));
  const share = running.reduce((sum, job) => sum + (job.progress || 0), 0) / running.length;
  document.title = running.length ? `${Math.round(100 * share)} % · Pictures` : "Pictures";
}

function remove(id) {
  const { element: gone } = cards.get(id);
  const next = gone.nextElementSibling || gone.previousElementSibling;
  const hadFocus = gone.contains(document.activeElement);
  cards.delete(id);
  following.remove(id);
  gone.remove();
  byId("empty").hidden = cards.size > 0;
  if (hadFocus) (next?.querySelector("h3") || byId("feed")).focus();
  remember();
}

/** The ids outlive a reload; what was asked for is the gateway's to keep. */
function remember() {
  const ids = [...byId("cards").children].map((shown) => [...cards].find(([, card]) => card.element === shown)[0]);
  sessionStorage.setItem(JOBS, JSON.stringify(ids.slice(0, MOST_KEPT)));
}

async function restore() {
  const ids = parsed(sessionStorage.getItem(JOBS) || "[]") || [];
  const found = await Promise.allSettled(ids.map((id) => call("GET", `jobs/${id}?include=request`)));
  for (const one of found) if (one.status === "fulfilled") keep(one.value, true);
}

const actions = {
  async cancel(job, pressed) {
    pressed.setAttribute("aria-disabled", "true");
    try {
      heard(job.job_id, "status", await call("DELETE", `jobs/${job.job_id}`));
      following.remove(job.job_id);
    } catch (problem) {
      pressed.removeAttribute("aria-disabled");
      announce(problem.sentence);
    }
  },
  async forget(job) {
    try {
      await call("DELETE", `jobs/${job.job_id}?purge=true`);
    } catch (problem) {
      if (problem.status !== 404) return announce(problem.sentence);
    }
    remove(job.job_id);
    announce("Deleted");
  },
  again(job, drawn) {
    fill(job, { seed: drawn.seed, num_images: 1 });
    announce(`The settings are filled in, with seed ${drawn.seed}`);
  },
  redo(job) {
    fill(job, {});
    announce("The settings are filled in");
  },
  async vary(job, drawn) {
    try {
      const file = await picture(job.job_id, job.images.indexOf(drawn));
      fill(job, { seed: "", num_images: 1 });
      await settings.start.set(file);
      announce("The picture is filled in as what to start from");
    } catch (problem) {
      complain(problem);
    }
  },
  async save(job, drawn, name) {
    try {
      const file = await picture(job.job_id, job.images.indexOf(drawn));
      const link = element("a", { href: URL.createObjectURL(file), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (problem) {
      complain(problem);
    }
  },
  canVary(job) {
    return Boolean(modelOf(job.model)?.tasks.includes("image-to-image"));
  },
  show(job, drawn, alt) {
    byId("viewer-image").src = drawn.url;
    byId("viewer-image").alt = alt;
    byId("viewer-caption").textContent = `${promptOf(job)} · seed ${drawn.seed}`;
    byId("viewer").showModal();
  },
};

function fill(job, changes) {
  const model = modelOf(job.model);
  if (model && model !== settings.model) {
    byId("model").value = model.name;
    settings.build(model);
  }
  settings.reset();
  settings.clearAll();
  settings.set({ ...job.request, ...changes });
  const prompt = byId("field-prompt");
  prompt.focus();
  prompt.scrollIntoView({ block: "center" });
}

byId("viewer").addEventListener("click", (event) => {
  if (event.target === byId("viewer")) byId("viewer").close();
});

if (/Mac|iPhone|iPad/.test(navigator.platform)) document.querySelector("kbd").textContent = "⌘";

start();
