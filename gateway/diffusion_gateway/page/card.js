// A job on the page: waiting, being drawn, or its pictures.

import { seconds } from "./client.js";
import { button, element } from "./dom.js";

const SURE_MS = 4000;

/** `actions`: cancel, again, vary, save, redo, forget, show, each called with the job (and a picture). */
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
    const { job } = this;
    const hadFocus = this.element.contains(document.activeElement);
    this.ended = true;
    this.element.classList.remove("working");
    this.element.classList.add(job.status);
    this.state.textContent = stateOf(job);
    const words = element("div", { className: "card-words" }, this.heading, this.state);
    const tools = element("div", { className: "card-tools" });
    if (job.status !== "completed") {
      this.element.replaceChildren(words);
      if (job.request) {
        tools.append(button("Try again", () => this.actions.redo(job), { label: `Try again: ${promptOf(job)}` }));
      }
    } else {
      this.element.replaceChildren(this.pictures(), words);
      if (job.images.length === 1) tools.append(...this.pictureTools(job.images[0], promptOf(job)));
    }
    tools.append(twice("Delete", "Really delete?", () => this.actions.forget(job), `Delete: ${promptOf(job)}`));
    words.append(tools);
    if (hadFocus) this.heading.focus();
  }

  pictures() {
    const { images } = this.job;
    const list = element("div", { className: "pictures" });
    if (images.length > 1) this.element.classList.add("many");
    images.forEach((picture, index) => {
      const number = images.length > 1 ? `, ${index + 1} of ${images.length}` : "";
      list.append(this.figure(picture, promptOf(this.job) + number));
    });
    return list;
  }

  figure(picture, alt) {
    const image = element("img", { alt, width: picture.width, height: picture.height, src: picture.url });
    image.addEventListener("error", () => image.replaceWith(
      element("span", { className: "lost" }, "This picture is not there any more.")), { once: true });
    const open = button("", () => this.actions.show(this.job, picture, alt),
      { className: "open", label: `Show larger: ${alt}` });
    open.append(image);
    const shown = element("figure", {}, open);
    if (this.job.images.length > 1) {
      shown.append(element("figcaption", { className: "card-words" },
        element("p", { className: "state" }, `Seed ${picture.seed}`),
        element("div", { className: "card-tools" }, ...this.pictureTools(picture, alt))));
    }
    return shown;
  }

  pictureTools(picture, alt) {
    const { job, actions } = this;
    const tools = [];
    if (job.request) {
      tools.push(button("Again with this seed", () => actions.again(job, picture),
        { label: `Again with this seed, ${picture.seed}` }));
    }
    if (job.request && actions.canVary(job)) {
      tools.push(button("Use as variation", () => actions.vary(job, picture),
        { label: `Use as variation: ${alt}` }));
    }
    tools.push(this.downloadLink(picture, alt));
    return tools;
  }

  /** The gateway's own pictures get a name that tells what they are; others keep theirs. */
  downloadLink(picture, alt) {
    const link = element("a", { className: "button", href: picture.url, "aria-label": `Download: ${alt}` },
      "Download");
    if (sameOrigin(picture.url)) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        this.actions.save(this.job, picture, fileName(this.job, picture));
      });
    } else {
      link.target = "_blank";
      link.rel = "noopener";
    }
    return link;
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
  if (job.images.length === 1) parts.push(`seed ${job.images[0].seed}`);
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
