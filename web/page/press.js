// Clicks on buttons whose action changes: a double click counts as one.

const DOUBLE_CLICK_MS = 250;

/** Calls `act` at each click but the second of a double click. @param {HTMLButtonElement} button @param {() => void} act */
export function onPress(button, act) {
  let last = -Infinity;
  button.addEventListener("click", ({ detail, timeStamp }) => {
    const again = detail > 1 && timeStamp - last < DOUBLE_CLICK_MS;
    last = timeStamp;
    if (!again) act();
  });
}
