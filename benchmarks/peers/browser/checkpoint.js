/** config.json and the weights of model.safetensors as f32 arrays, for engines that read neither. */
export async function readCheckpoint() {
  const config = await (await fetch("/model/config.json")).json();
  const bytes = await (await fetch("/model/model.safetensors")).arrayBuffer();
  const end = 8 + Number(new DataView(bytes).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, end - 8)));
  const weights = new Map();
  for (const [name, { dtype, shape, data_offsets: range }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const part = bytes.slice(end + range[0], end + range[1]);
    const values = dtype === "F16" ? new Float32Array(new Float16Array(part)) : new Float32Array(part);
    weights.set(name.replace(/^transformer\./, ""), { values, shape });
  }
  return { config, weights };
}

/** @param {string} name of a package → its version */
export async function versionOf(name) {
  return (await (await fetch(`/npm/${name}/package.json`)).json()).version;
}

/** The index of the largest. @param {Float32Array} values */
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}
