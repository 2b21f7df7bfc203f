// What was typed before, for the arrow keys.

export class Recall {
  /** @type {string[]} oldest first */
  #entries = [];
  #at = 0;
  #draft = "";

  /** @param {string} entry */
  add(entry) {
    if (entry !== this.#entries.at(-1)) this.#entries.push(entry);
    this.#at = this.#entries.length;
  }

  /**
   * The entry before (-1) or after (1) the one shown; null at either end.
   * @param {-1 | 1} step
   * @param {string} shown what the prompt holds now; comes back after the newest entry
   * @returns {string | null}
   */
  move(step, shown) {
    const next = this.#at + step;
    if (next < 0 || next > this.#entries.length) return null;
    if (this.#at === this.#entries.length) this.#draft = shown;
    this.#at = next;
    return next === this.#entries.length ? this.#draft : this.#entries[next];
  }
}
