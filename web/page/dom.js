// Finding and making elements. Text only ever becomes a text node: nothing here parses markup.

/**
 * The element of index.html with this id, of this type; a page that lacks it is a bug.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`index.html has no ${type.name} with id ${id}`);
  return found;
}

/**
 * The first element below `root` that matches `selector`, of this type.
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T}
 */
export function within(root, selector, type) {
  const found = root.querySelector(selector);
  if (!(found instanceof type)) throw new Error(`no ${type.name} matches ${selector}`);
  return found;
}

/**
 * A new element with a class and children, strings becoming text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} className
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/**
 * A button that does one thing.
 * @param {string} text
 * @param {() => void} onClick
 * @param {string} [label] what a screen reader says, where the text alone is ambiguous
 */
export function button(text, onClick, label) {
  const made = make("button", "", text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", onClick);
  return made;
}

/**
 * Shows a number of bytes in a <data> element: rounded to read, exact as its value.
 * @param {HTMLDataElement} data
 * @param {number} bytes
 * @param {string} text
 */
export function showBytes(data, bytes, text) {
  if (data.value === String(bytes)) return;
  data.value = String(bytes);
  data.title = `${bytes.toLocaleString("en")} bytes`;
  data.textContent = text;
}
