// The picture that a request starts from: chosen, dropped, or one that was drawn here.

import { element } from "./dom.js";

/** Holds the file and shows it; `changed` is called with it, or with null, and with its shape. */
export class StartImage {
  constructor(changed) {
    this.changed = changed;
    this.file = null;
    this.input = element("input", { type: "file", accept: "image/png,image/jpeg,image/webp", id: "field-image" });
    this.shown = element("img", { alt: "The picture you start from", hidden: true });
    this.away = element("button", { type: "button", hidden: true }, "Remove");
    this.element = element("div", { className: "drop" }, this.shown, this.input, this.away);
    this.input.addEventListener("change", () => this.input.files[0] && this.set(this.input.files[0]));
    this.away.addEventListener("click", () => { this.set(null); this.input.focus(); });
    this.element.addEventListener("dragover", (event) => this.over(event, true));
    this.element.addEventListener("dragleave", (event) => this.over(event, false));
    this.element.addEventListener("drop", (event) => {
      this.over(event, false);
      const dropped = [...event.dataTransfer.files].find((file) => file.type.startsWith("image/"));
      if (dropped) this.set(dropped);
    });
  }

  over(event, state) {
    event.preventDefault();
    this.element.classList.toggle("over", state);
  }

  async set(file) {
    if (this.shown.src) URL.revokeObjectURL(this.shown.src);
    this.file = file;
    this.shown.hidden = this.away.hidden = !file;
    this.input.hidden = Boolean(file);
    if (!file) {
      this.input.value = "";
      this.shown.removeAttribute("src");
      this.changed(null);
      return;
    }
    this.shown.src = URL.createObjectURL(file);
    // What cannot be shown here is for the gateway to judge.
    await this.shown.decode().catch(() => {});
    this.changed(file, this.shown.naturalWidth, this.shown.naturalHeight);
  }
}
