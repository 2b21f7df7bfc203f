// Groups of many buttons or links that are one stop of the Tab key: arrow keys, Home and End move within.

/** @param {ParentNode} group @returns {HTMLElement[]} */
const stopsOf = (group) => [...group.querySelectorAll("button, a")].filter((each) => each instanceof HTMLElement);

/** Makes the buttons and links of `group`, now and later, one stop. @param {HTMLElement} group */
export function rove(group) {
  group.addEventListener("keydown", (event) => {
    const stops = stopsOf(group);
    const at = stops.findIndex((each) => each === document.activeElement);
    const last = group.querySelector("tr:last-child");
    const row = last ? stopsOf(last).length : 1;
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - row,
      ArrowDown: at + row,
      Home: 0,
      End: stops.length - 1,
    };
    if (!(event.key in to) || at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    stops[to[event.key]]?.focus();
  });
  group.addEventListener("focusin", ({ target }) => {
    for (const each of stopsOf(group)) each.tabIndex = each === target ? 0 : -1;
  });
}

/** After they were made: the one to which Tab goes first. @param {HTMLElement} group @param {number} first */
export function stopAt(group, first) {
  stopsOf(group).forEach((each, i) => (each.tabIndex = i === first ? 0 : -1));
}
