// The settings of a picture, built from what the model says of itself.

import { choice, folded, hint, LABELS, number, plain, text, valueOf } from "./controls.js";
import { byId, element } from "./dom.js";
import { StartImage } from "./start_image.js";

const FIRST = ["prompt", "num_images", "width", "height", "num_inference_steps", "guidance_scale", "seed"];
const MORE = ["negative_prompt", "scheduler", "priority"];
const MEASURED = ["num_inference_steps", "guidance_scale"];
// The page's own business, or the gateway's.
const NOT_ASKED = new Set(["stream", "preview_every", "checkpoint_every", "checkpoint", "timeout_s",
  "image", "mask_image", "strength", "adapters", "feature_cache", "model", "deadline", "webhook", "cache",
  "control_image", "controlnet", "controlnet_conditioning_scale", "control_guidance_start",
  "control_guidance_end", "ip_adapter_image", "ip_adapter_scale"]);
const MOST_CHOICES = 6;
const PREVIEWS = 6;

export class Settings {
  constructor(place) {
    this.place = place;
    this.controls = new Map();
    this.start = null;
  }

  /** Makes the fields of a model; what was filled in for another one stays where it fits. */
  build(model) {
    const kept = this.controls.size ? this.values() : {};
    this.model = model;
    this.controls.clear();
    this.start = null;
    // A model that only inpaints has no other task; the page then says what it lacks, as any client.
    const [own] = Object.values(model.request_schema);
    const { properties } = model.request_schema["text-to-image"] ?? own;
    this.properties = properties;
    const known = Object.keys(properties).filter((name) => !NOT_ASKED.has(name));
    const first = FIRST.filter((name) => known.includes(name));
    const more = MORE.filter((name) => known.includes(name));
    const rest = known.filter((name) => !first.includes(name) && !more.includes(name));
    const over = model.request_schema["image-to-image"];
    this.place.replaceChildren(
      ...this.rows(first, properties),
      ...(over ? [this.startImage(over.properties)] : []),
      folded("More settings", this.rows([...more, ...rest], properties, true)),
    );
    this.set(kept);
  }

  get image() {
    return this.start?.file ?? null;
  }

  /** Rows for these fields; `told`: with what the API says of each. */
  rows(names, properties, told = false) {
    const rows = names.map((name) => {
      const { description, ...schema } = plain(properties[name]);
      return this.row(name, told ? { description, ...schema } : schema);
    });
    const width = names.indexOf("width");
    if (width >= 0 && names[width + 1] === "height") {
      rows.splice(width, 2, element("div", { className: "pair" }, rows[width], rows[width + 1]));
    }
    return rows;
  }

  row(name, schema) {
    const label = LABELS[name] || name.replaceAll("_", " ");
    if (name === "num_images" && schema.maximum <= MOST_CHOICES) return this.choices(name, label, schema);
    if (schema.enum) return this.field(name, label, choice(schema), schema.description);
    if (schema.type === "boolean") return this.checkbox(name, label, schema);
    if (MEASURED.includes(name)) return this.measured(name, label, schema);
    if (schema.type === "string") return this.field(name, label, text(name, schema), schema.description);
    return this.field(name, label, number(name, schema), schema.description);
  }

  field(name, label, control, about) {
    control.id = `field-${name}`;
    this.controls.set(name, control);
    const described = hint(name, about);
    if (described) control.setAttribute("aria-describedby", described.id);
    return element("div", { className: "field" }, element("label", { for: control.id }, label),
      control, described, this.errorLine(name, control));
  }

  checkbox(name, label, schema) {
    const row = this.field(name, label, element("input", { type: "checkbox", defaultChecked: schema.default }));
    row.classList.add("check");
    return row;
  }

  /** A number with a slider below it. */
  measured(name, label, schema) {
    const exact = number(name, schema);
    const row = this.field(name, label, exact, schema.description);
    row.classList.add("measured");
    const slider = element("input", { type: "range", min: exact.min, max: exact.max,
      step: exact.step === "any" ? (exact.max > 2 ? 0.5 : 0.05) : exact.step, value: exact.value,
      "aria-label": `${label}, slider` });
    exact.follow = () => (slider.value = exact.value);
    exact.addEventListener("input", exact.follow);
    slider.addEventListener("input", () => { exact.value = slider.value; this.clear(name); });
    exact.after(slider);
    return row;
  }

  choices(name, label, schema) {
    const list = element("fieldset", { className: "field choices", id: `field-${name}` },
      element("legend", {}, label));
    for (let count = schema.minimum; count <= schema.maximum; count += 1) {
      const radio = element("input", { type: "radio", name, value: String(count),
        defaultChecked: count === schema.default });
      list.append(element("label", {}, radio, String(count)));
    }
    this.controls.set(name, list);
    list.append(this.errorLine(name, list));
    return list;
  }

  startImage(properties) {
    const strength = this.measured("strength", LABELS.strength, { ...plain(properties.strength), minimum: 0.05 });
    strength.hidden = true;
    this.start = new StartImage((file, width, height) => {
      strength.hidden = !file;
      this.clear("image");
      if (file) fold.open = true;
      if (file && width) this.set(this.sizeFor(width, height));
    });
    this.controls.set("image", this.start.input);
    const chooser = element("div", { className: "field" },
      element("label", { for: "field-image", className: "unseen" }, LABELS.image),
      this.start.element, this.errorLine("image", this.start.input));
    const fold = folded(LABELS.image, [chooser, strength]);
    return fold;
  }

  /** The size that a picture over one of this shape has: as large, within what the model draws. */
  sizeFor(width, height) {
    const { min_size: least, max_size: most } = this.model.limits;
    const multiple = this.model.size_multiple;
    const shrunk = Math.min(1, most / Math.max(width, height));
    const scale = Math.max(shrunk, least / Math.min(width, height));
    const within = (side) => {
      const lowest = Math.ceil(least / multiple), highest = Math.floor(most / multiple);
      return Math.min(highest, Math.max(lowest, Math.round((side * scale) / multiple))) * multiple;
    };
    return { width: within(width), height: within(height) };
  }

  /** The request that is filled in. A seed stays text: it may be larger than JavaScript's numbers. */
  values() {
    const values = {};
    for (const [name, control] of this.controls) {
      if (name === "image" || (name === "strength" && !this.image)) continue;
      const value = valueOf(control);
      if (name === "seed" && value.trim()) values.seed = BigInt(value.trim()).toString();
      else if (name !== "seed" && value !== "") values[name] = value;
    }
    return values;
  }

  /** The request as it is sent: with previews, where the model gives them. */
  request() {
    const values = { ...this.values(), model: this.model.name };
    if ("preview_every" in this.properties) {
      values.preview_every = Math.max(1, Math.round((values.num_inference_steps || 20) / PREVIEWS));
    }
    return values;
  }

  set(values) {
    for (const [name, control] of this.controls) {
      const value = values[name];
      if (name === "image" || value === undefined || value === null) continue;
      if (control.matches("fieldset")) {
        for (const radio of control.querySelectorAll("input")) radio.checked = radio.value === String(value);
      } else if (control.type === "checkbox") control.checked = value;
      else control.value = value;
      control.follow?.();
    }
  }

  /** All fields as the model has them by default, the prompt empty. */
  reset() {
    for (const control of this.controls.values()) {
      if (control.matches("fieldset")) {
        for (const radio of control.querySelectorAll("input")) radio.checked = radio.defaultChecked;
      } else if (control.type === "checkbox") control.checked = control.defaultChecked;
      else if (control.matches("select")) control.value = control.initial;
      else if (control.type !== "file") control.value = control.defaultValue;
      control.follow?.();
    }
    this.start?.set(null);
  }

  /** Marks what cannot be sent as it stands; false if there is something. */
  check() {
    this.clearAll();
    const seed = this.controls.get("seed");
    for (const [name, control] of this.controls) {
      if (control.validity?.badInput) return !this.mark(name, "Must be a number.");
    }
    if (seed && !/^\s*\d*\s*$/.test(seed.value)) return !this.mark("seed", "Must be a whole number.");
    if (!this.controls.get("prompt").value.trim()) return !this.mark("prompt", "Say what the picture should show.");
    return true;
  }

  /** Ties a message to a field and goes there; false if there is no such field. */
  mark(name, message) {
    const control = this.controls.get(name);
    if (!control) return false;
    const line = byId(`error-${name}`);
    line.textContent = message;
    line.hidden = false;
    control.setAttribute("aria-invalid", "true");
    const fold = control.closest("details");
    if (fold) fold.open = true;
    (control.matches("fieldset") ? control.querySelector("input:checked, input") : control).focus();
    return true;
  }

  clear(name) {
    this.controls.get(name).removeAttribute("aria-invalid");
    byId(`error-${name}`).hidden = true;
  }

  clearAll() {
    for (const name of this.controls.keys()) this.clear(name);
  }

  errorLine(name, control) {
    const line = element("p", { className: "error", id: `error-${name}`, hidden: true });
    const described = control.getAttribute("aria-describedby");
    control.setAttribute("aria-describedby", [described, line.id].filter(Boolean).join(" "));
    control.addEventListener("input", () => this.clear(name));
    return line;
  }
}
