// Updates no faster than a reader: the last call of each period wins, and none is lost.

/**
 * Wraps `update` so that it runs at once and then at most every `milliseconds`, with the arguments
 * of the latest call.
 * @template {unknown[]} A
 * @param {number} milliseconds
 * @param {(...args: A) => void} update
 * @returns {(...args: A) => void}
 */
export function paced(milliseconds, update) {
  /** @type {A | null} */
  let waiting = null;
  let resting = false;
  const next = () => {
    resting = waiting !== null;
    if (waiting === null) return;
    const args = waiting;
    waiting = null;
    setTimeout(next, milliseconds);
    update(...args);
  };
  return (...args) => {
    waiting = args;
    if (!resting) next();
  };
}
