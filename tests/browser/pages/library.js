import { GPT2, check, configure, models, offline } from "../web/gpt2.js";

Object.assign(globalThis, { GPT2, check, configure, models, offline });

// What was thrown, as data.
globalThis.thrown = async (work) => {
  try {
    await work();
    return null;
  } catch ({ name, message }) {
    return { name, message };
  }
};

// A model's text and figures.
globalThis.write = async (lm, prompt, options) => {
  const stream = lm.stream(prompt, options);
  const pieces = [];
  for await (const text of stream) pieces.push(text);
  return { text: pieces.join(""), pieces: pieces.length, stats: stream.stats };
};
