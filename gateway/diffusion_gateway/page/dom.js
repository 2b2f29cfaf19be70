// Elements, without markup in strings.

/** An element with properties (those with a hyphen, and `role` and `for`, as attributes) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "for" || name === "role" || name === "list") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function button(text, action, { label, className } = {}) {
  const made = element("button", { type: "button", className, "aria-label": label }, text);
  made.addEventListener("click", action);
  return made;
}

export const byId = (id) => document.getElementById(id);

let clearing = 0;

/** Says something to screen readers, once. */
export function announce(text) {
  const announcer = byId("announcer");
  announcer.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (announcer.textContent = ""), 8000);
}
