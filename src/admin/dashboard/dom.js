// Builds nodes. Everything that comes from the API passes through here as text: there is no way in
// this page to make markup of a string, and the policy that it is served with allows none.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

// Characters that no one sees, or that turn the writing around them: a name with U+202E would read as another.
const UNSEEN = /[\p{Cc}\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu;
const point = (character) =>
  `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;

export const visible = (text) => String(text).replace(UNSEEN, point);

// `props` are properties of the node; `data`, `aria` and `on` are maps of their own kind.
export function element(tag, props = {}, ...children) {
  const { data, aria, on, ...rest } = props;
  for (const key of ["textContent", "title"])
    if (rest[key] !== undefined) rest[key] = visible(rest[key]);
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, data);
  for (const [name, value] of Object.entries(aria ?? {})) node.setAttribute(`aria-${name}`, value);
  for (const [name, hear] of Object.entries(on ?? {})) node.addEventListener(name, hear);
  const there = children.filter(
    (child) => child !== null && child !== undefined && child !== false,
  );
  node.append(...there.map((child) => (child instanceof Node ? child : visible(child))));
  return node;
}

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// One of the shapes that index.html holds; beside a word it says nothing new to a screen reader.
export function icon(name) {
  const use = svg("use", { href: `#i-${name}` });
  return svg("svg", { class: "icon", "aria-hidden": "true", "data-icon": name }, use);
}

export function setIcon(node, name) {
  if (node.dataset.icon === name) return;
  node.dataset.icon = name;
  node.firstElementChild.setAttribute("href", `#i-${name}`);
}

// A name that somebody else chose: its direction of writing stays its own.
export const name = (text, props = {}) =>
  element("bdi", { textContent: text, title: text, ...props });

// These write only what changed, so that a selection, or a reader in the middle, is left alone.
export function setText(node, text) {
  const shown = visible(text);
  if (node.textContent !== shown) node.textContent = shown;
}

// The same, and all of it where the pointer rests, for what may be cut off.
export function setName(node, text) {
  setText(node, text);
  if (node.title !== node.textContent) node.title = node.textContent;
}

export function setData(node, key, value) {
  if (node.dataset[key] !== value) node.dataset[key] = value;
}

// A trail of numbers as the points of a polyline in a box.
export function polyline(values, width, height, most = Math.max(...values, 1e-9)) {
  const step = width / Math.max(values.length - 1, 1);
  return values
    .map(
      (value, i) =>
        `${(i * step).toFixed(1)},${(height - 1 - (value / most) * (height - 2)).toFixed(1)}`,
    )
    .join(" ");
}
