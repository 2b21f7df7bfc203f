// The browser's end of relay.py: does calls that were made in another process.
//
// A message is [id of the result, id of an object, method, arguments]; object 0 is the backend.

globalThis.relay = (() => {
  "use strict";

  const objects = new Map([[0, globalThis.gpt2WgpuBackend]]);

  function decoded(argument) {
    if (Array.isArray(argument)) return argument.map(decoded);
    if (argument === null || typeof argument !== "object") return argument;
    if ("id" in argument) return objects.get(argument.id);
    const data = Uint8Array.fromBase64(argument.bytes);
    return { getBuffer: () => ({ data, release() {} }) }; // as Pyodide passes bytes
  }

  const answers = {
    none: () => null,
    value: (id) => objects.get(id),
    bytes: (id) => objects.get(id).toBase64(),
    settled: async (id, result) => {
      objects.set(result, await objects.get(id));
      return null;
    },
  };

  // Does all calls, then answers what was asked of the last; the first failure comes first.
  return async (text) => {
    const { dropped, calls, answer, subject, result } = JSON.parse(text);
    let failure = null;
    for (const [id, target, method, parameters] of calls) {
      try {
        objects.set(id, objects.get(target)[method](...parameters.map(decoded)));
      } catch (error) {
        failure ??= error;
      }
    }
    try {
      if (failure) throw failure;
      return { value: await answers[answer](subject, result) };
    } catch ({ name, message }) {
      return { failed: { name, message } };
    } finally {
      for (const id of dropped) objects.delete(id);
    }
  };
})();
