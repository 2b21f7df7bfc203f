// Numbers as people read them. The page is in English, so its numbers are too.

/** @param {number} bytes @returns {string} "15.1 MB" */
export function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  if (bytes >= 1e5 || bytes === 0) return `${(bytes / 1e6).toFixed(bytes ? 1 : 0)} MB`;
  return bytes >= 1e3 ? `${(bytes / 1e3).toFixed(1)} kB` : `${bytes} B`;
}

/** @param {number} bytes @returns {string} "15,091,009 bytes" */
export function exactly(bytes) {
  return `${bytes.toLocaleString("en")} ${bytes === 1 ? "byte" : "bytes"}`;
}

/** @param {number} done @param {number} total @returns {string} "8.1 of 15.1 MB" */
export function part(done, total) {
  const whole = size(total);
  const unit = whole.slice(whole.indexOf(" "));
  const mine = size(done);
  return `${mine.endsWith(unit) ? mine.slice(0, -unit.length) : mine} of ${whole}`;
}

/** @param {number} seconds @returns {string} "0.21 s" */
export function time(seconds) {
  if (seconds >= 90) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${seconds.toFixed(seconds < 1 ? 2 : 1)} s`;
}

/**
 * A message of the library as a sentence of the page: with a capital, unless it begins with a name
 * such as a file's, and a full stop.
 * @param {string} message @returns {string}
 */
export function sentence(message) {
  const text = message.trim().replace(/^[a-z]+(?= )/, (word) => word[0].toUpperCase() + word.slice(1));
  return /[\w)"']$/.test(text) ? `${text}.` : text;
}

/** @param {number} count @param {string} noun @returns {string} "1 file", "6 files" */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
