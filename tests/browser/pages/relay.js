// The browser's end of relay.py: does calls that were made in another process.
//
// A message is [id of the result, id of an object, method, arguments]; object 0 is the backend.

globalThis.relay = (() => {
  "use strict";

  const objects = new Map([[0, globalThis.gpt2WgpuBackend]]);

  function decoded(argument, many) {
    if (Array.isArray(argument)) return argument.map((item) => decoded(item, many));
    if (argument === null || typeof argument !== "object") return argument;
    if ("id" in argument) return objects.get(argument.id);
    const { held, bytes } = argument;
    const data = held ? many.subarray(...held) : Uint8Array.fromBase64(bytes);
    return { getBuffer: () => ({ data, release() {} }) }; // as Pyodide passes bytes
  }

  const answers = {
    none: () => null,
    value: (id) => objects.get(id),
    bytes: async (id, _, many) => {
      const data = objects.get(id);
      if (data.length < many) return data.toBase64();
      await fetch("data", { method: "POST", body: data });
      return null;
    },
    settled: async (id, result) => {
      objects.set(result, await objects.get(id));
      return null;
    },
  };

  // Does all calls, then answers what was asked of the last; the first failure comes first.
  return async (text) => {
    const { dropped, calls, answer, subject, result, held, many } = JSON.parse(text);
    const data = held ? new Uint8Array(await (await fetch("data")).arrayBuffer()) : null;
    let failure = null;
    for (const [id, target, method, parameters] of calls) {
      try {
        objects.set(id, objects.get(target)[method](...decoded(parameters, data)));
      } catch (error) {
        failure ??= error;
      }
    }
    try {
      if (failure) throw failure;
      return { value: await answers[answer](subject, result, many) };
    } catch ({ name, message }) {
      return { failed: { name, message } };
    } finally {
      for (const id of dropped) objects.delete(id);
    }
  };
})();
