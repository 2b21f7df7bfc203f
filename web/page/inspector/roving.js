// Groups of many buttons that are one stop of the Tab key: arrow keys, Home and End move within.

/** Makes the buttons of `group`, now and later, one stop. @param {HTMLElement} group */
export function rove(group) {
  group.addEventListener("keydown", (event) => {
    const buttons = [...group.querySelectorAll("button")];
    const at = buttons.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
    const row = group.querySelector("tr:last-child")?.querySelectorAll("button").length ?? 1;
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - row,
      ArrowDown: at + row,
      Home: 0,
      End: buttons.length - 1,
    };
    if (!(event.key in to) || at < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    buttons[to[event.key]]?.focus();
  });
  group.addEventListener("focusin", ({ target }) => {
    for (const button of group.querySelectorAll("button")) button.tabIndex = button === target ? 0 : -1;
  });
}

/** After the buttons were made: the one to which Tab goes first. @param {HTMLElement} group @param {number} first */
export function stopAt(group, first) {
  [...group.querySelectorAll("button")].forEach((button, i) => (button.tabIndex = i === first ? 0 : -1));
}
