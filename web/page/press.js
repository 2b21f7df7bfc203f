// Clicks on buttons that change what they do: a double click is one click.

const HASTY = 250; // milliseconds: sooner, nobody has seen what the button has become

/** Calls `act` at each click but the second of a double click. @param {HTMLButtonElement} button @param {() => void} act */
export function onPress(button, act) {
  let last = -Infinity;
  button.addEventListener("click", ({ detail, timeStamp }) => {
    const hasty = detail > 1 && timeStamp - last < HASTY;
    last = timeStamp;
    if (!hasty) act();
  });
}
