// Controls for the fields of a request, by their JSON Schema.

import { element } from "./dom.js";

export const LABELS = {
  prompt: "Prompt",
  negative_prompt: "Negative prompt",
  num_inference_steps: "Steps",
  guidance_scale: "Guidance",
  width: "Width",
  height: "Height",
  seed: "Seed",
  num_images: "Pictures",
  scheduler: "Scheduler",
  strength: "Strength",
  image: "Start from a picture",
  output_format: "File format",
  quality: "File quality",
  embed_prompt: "Write the prompt into the file",
  prompt_2: "Prompt of the second encoder",
  negative_prompt_2: "Negative prompt of the second encoder",
  guidance_rescale: "Guidance rescale",
  true_cfg_scale: "True guidance",
  clip_skip: "CLIP layers to skip",
  max_sequence_length: "Longest prompt, in tokens",
  priority: "Priority",
};

/** A property that may be null, as the property itself. */
export function plain(schema) {
  const own = schema.anyOf?.find((one) => one.type !== "null");
  return own ? { description: schema.description, ...own, default: schema.default, nullable: true } : schema;
}

export function text(name, schema) {
  const control = element("textarea", { defaultValue: schema.default ?? "",
    className: name === "prompt" ? "" : "short", rows: name === "prompt" ? 3 : 2 });
  if (schema.maxLength) control.maxLength = schema.maxLength;
  if (name === "prompt") {
    control.required = true;
    control.placeholder = "What should the picture show?";
  }
  return control;
}

export function number(name, schema) {
  // Seeds may be larger than the numbers that JavaScript holds exactly.
  if (name === "seed") {
    return element("input", { type: "text", inputMode: "numeric", autocomplete: "off", placeholder: "Random",
      maxLength: 19 });
  }
  const whole = schema.type === "integer";
  return element("input", { type: "number", inputMode: whole ? "numeric" : "decimal", autocomplete: "off",
    min: schema.minimum, max: schema.maximum, step: schema.multipleOf ?? (whole ? 1 : "any"),
    defaultValue: schema.default ?? "" });
}

export function choice(schema) {
  const options = schema.enum.map((name) => element("option", { value: name }, name));
  if (schema.nullable) options.unshift(element("option", { value: "" }, "The model's own"));
  const control = element("select", {}, ...options);
  control.value = control.initial = schema.default ?? "";
  return control;
}

export function hint(name, text) {
  return text ? element("p", { className: "hint", id: `hint-${name}` }, text) : null;
}

export function folded(title, rows) {
  return element("details", { className: "more" }, element("summary", {}, title), ...rows);
}

export function valueOf(control) {
  if (control.matches("fieldset")) return Number(control.querySelector(":checked").value);
  if (control.type === "checkbox") return control.checked;
  if (control.type === "number") return control.value === "" ? "" : control.valueAsNumber;
  return control.value;
}
