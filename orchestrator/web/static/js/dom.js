/**
 * Small helpers to build and update elements. Text always goes through textContent: nothing from the network becomes
 * markup. Not here: what is shown (views/).
 */

const SVG = "http://www.w3.org/2000/svg";

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child);
  }
  return node;
}

function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name === "cls" ? "class" : name, value === true ? "" : value);
  }
  return node;
}

/** Make an HTML element; `cls` is its class, `text` its text, `onclick` and the like are listeners. */
export function h(tag, attributes, ...children) {
  return append(setAttributes(document.createElement(tag), attributes), children);
}

/** Make an SVG element. */
export function s(tag, attributes, ...children) {
  return append(setAttributes(document.createElementNS(SVG, tag), attributes), children);
}

/** Set the text only when it differs, so that an unchanged page costs no layout. */
export function setText(node, text) {
  const value = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== value) node.textContent = value;
}

/** Set an attribute only when it differs; null removes it. */
export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Show or hide. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** Let the browser save a file that was fetched with the token. */
export function saveBlob(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Replace all children when `key` differs from the last time: cheap lists without a framework. */
export function replaceWhen(node, key, make) {
  if (node.dataset.key === key) return false;
  node.dataset.key = key;
  node.replaceChildren(...[make()].flat(Infinity).filter(Boolean));
  return true;
}
