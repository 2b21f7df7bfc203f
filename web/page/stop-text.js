// A stop text ends a text, and the page does not show it: it leaves the session, too.

/**
 * Takes the stop text from the session. What was computed for the tokens that remain is kept, also where
 * encoding the text would give other tokens.
 * @param {import("../gpt2.js").GPT2} lm
 * @param {import("../gpt2.js").Session} session
 * @param {number} before tokens of it before the part that ended
 * @param {string} written the part, without the stop text
 */
export async function dropStopText(lm, session, before, written) {
  const ids = (await session.tokenIds()).slice(before);
  const pieces = await lm.tokenizer.pieces(ids);
  let [kept, length] = [0, 0];
  for (let end = 0, i = 0; i < pieces.length; i++) {
    end += pieces[i].length; // (tokens of a part of a character have no text; the last of them has it)
    if (end > written.length) break;
    if (end > length) [kept, length] = [i + 1, end];
  }
  await session.rewind(ids.length - kept);
  if (length < written.length) await session.append(written.slice(length)); // the stop text began in a token
}
