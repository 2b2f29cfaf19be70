// A job on the page: waiting, being drawn, or its pictures.

import { seconds } from "./client.js";
import { button, element } from "./dom.js";

const SURE_MS = 4000;

/** `actions`: cancel, again, vary, redo, forget, show, each called with the job (and a picture). */
export class Card {
  constructor(job, actions) {
    this.job = job;
    this.actions = actions;
    this.heading = element("h3", { id: `title-${job.job_id}`, tabIndex: -1 }, promptOf(job));
    this.state = element("p", { className: "state" });
    this.element = element("article", { className: "card", "aria-labelledby": this.heading.id });
    this.ended = false;
    this.work();
    this.update();
  }

  update() {
    if (ended(this.job)) {
      if (!this.ended) this.end();
      return;
    }
    const { job } = this;
    this.state.textContent = stateOf(job);
    if (job.status === "pending") this.progress.removeAttribute("value");
    this.progress.hidden = job.status === "pending";
    if (job.status === "processing") this.progress.value = job.progress || 0;
    if (job.preview && this.preview.src !== job.preview) {
      this.preview.src = job.preview;
      this.preview.alt = `Preview after step ${job.step}`;
      this.preview.hidden = false;
      this.blank.hidden = true;
    }
  }

  work() {
    const { width = 1, height = 1 } = this.job.request || {};
    this.element.classList.add("working");
    this.blank = element("canvas", { className: "blank", width, height });
    this.preview = element("img", { className: "preview", width, height, hidden: true });
    this.preview.addEventListener("error", () => { this.preview.hidden = true; this.blank.hidden = false; });
    this.progress = element("progress", { max: 1, "aria-label": "Progress" });
    const cancel = button("Cancel", () => this.actions.cancel(this.job, cancel),
      { label: `Cancel: ${promptOf(this.job)}` });
    this.element.replaceChildren(
      element("div", { className: "canvas" }, this.blank, this.preview),
      element("div", { className: "card-words" }, this.heading, this.state, this.progress,
        element("div", { className: "card-tools" }, cancel)),
    );
  }

  end() {
    const { job, actions } = this;
    const hadFocus = this.element.contains(document.activeElement);
    this.ended = true;
    this.element.classList.remove("working");
    this.element.classList.add(job.status);
    this.state.textContent = stateOf(job);
    const tools = element("div", { className: "card-tools" });
    if (job.request) {
      const text = job.status === "completed" ? "Use these settings" : "Try again";
      tools.append(button(text, () => actions.redo(job), { label: `${text}: ${promptOf(job)}` }));
    }
    tools.append(twice("Delete", "Really delete?", () => actions.forget(job), `Delete: ${promptOf(job)}`));
    const words = element("div", { className: "card-words" }, this.heading, this.state, tools);
    if (job.status === "completed") this.element.replaceChildren(this.pictures(), words);
    else this.element.replaceChildren(words);
    if (hadFocus) this.heading.focus();
  }

  pictures() {
    const list = element("div", { className: "pictures" });
    this.job.images.forEach((picture, index) => list.append(this.figure(picture, index)));
    return list;
  }

  figure(picture, index) {
    const { job, actions } = this;
    const number = job.images.length > 1 ? `, ${index + 1} of ${job.images.length}` : "";
    const alt = `${promptOf(job)}${number}`;
    const image = element("img", { alt, width: picture.width, height: picture.height, src: picture.url });
    image.addEventListener("error", () => image.replaceWith(
      element("span", { className: "lost" }, "This picture is not there any more.")), { once: true });
    const open = button("", () => actions.show(job, picture, alt), { className: "open", label: `Show larger: ${alt}` });
    open.append(image);
    const seed = picture.seed;
    const tools = element("div", { className: "picture-tools" });
    if (job.request) {
      tools.append(button("Again with this seed", () => actions.again(job, picture),
        { label: `Again with this seed, ${seed}` }));
      if (actions.canVary(job)) {
        tools.append(button("Use as variation", () => actions.vary(job, picture),
          { label: `Use as variation: ${alt}` }));
      }
    }
    tools.append(element("a", { className: "button", href: picture.url, download: fileName(job, picture),
      target: sameOrigin(picture.url) ? undefined : "_blank", rel: "noopener", "aria-label": `Download: ${alt}` },
      "Download"));
    return element("figure", {}, open, element("figcaption", {}, `Seed ${seed}`), tools);
  }
}

export function promptOf(job) {
  return job.request?.prompt || "Picture";
}

export function ended(job) {
  return ["completed", "failed", "cancelled"].includes(job.status);
}

/** Where the job stands, in a few words. */
export function stateOf(job) {
  switch (job.status) {
    case "pending": return [placeOf(job), estimateOf(job)].filter(Boolean).join(" · ");
    case "processing": return job.step ? `Drawing, step ${job.step} of ${job.steps}` : "Drawing";
    case "completed": return doneOf(job);
    case "cancelled": return "Cancelled";
    default: return reasonOf(job);
  }
}

function placeOf(job) {
  if (!job.queue_position) return "Waiting";
  return job.queue_position === 1 ? "Next in line" : `${job.queue_position - 1} ahead in line`;
}

function estimateOf(job) {
  if (!job.estimated_interval) return "";
  const [low, high] = job.estimated_interval.map(seconds);
  return low === high ? `about ${low}` : `about ${low} to ${high}`;
}

function doneOf(job) {
  const parts = [`${job.steps} ${job.steps === 1 ? "step" : "steps"}`];
  if (job.cached) parts.push("drawn before");
  else if (job.started_at) {
    const took = (Date.parse(job.completed_at) - Date.parse(job.started_at)) / 1000;
    parts.push(took < 10 ? `${took.toFixed(1)} s` : seconds(took));
  }
  if (job.prompt_truncated) parts.push("the end of the prompt was too long to count");
  return parts.join(" · ");
}

function reasonOf(job) {
  const reasons = {
    deadline_exceeded: "It was not drawn in time.",
    out_of_memory: "It is too large for the device. Try a smaller size or fewer pictures.",
    attempts_exhausted: "Every try failed. Others go on; try other settings.",
  };
  const error = job.error || {};
  return reasons[error.code] || `It could not be drawn: ${error.detail || "the reason is not known"}`;
}

function fileName(job, picture) {
  const words = promptOf(job).toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-|-$/g, "");
  const end = { "image/jpeg": "jpg", "image/webp": "webp" }[picture.content_type] || "png";
  return `${words || "picture"}-${picture.seed}.${end}`;
}

function sameOrigin(url) {
  return new URL(url, document.baseURI).origin === location.origin;
}

/** A button that asks to be pressed again before it acts. */
function twice(text, question, action, label) {
  let asked = 0;
  const made = button(text, () => {
    if (asked) { clearTimeout(asked); action(); return; }
    made.textContent = question;
    made.removeAttribute("aria-label");
    asked = setTimeout(() => { asked = 0; made.textContent = text; made.setAttribute("aria-label", label); }, SURE_MS);
  }, { label });
  return made;
}
