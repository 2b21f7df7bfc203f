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

/** The index of the largest value of each of `rows` rows. @param {Float32Array} values @param {number} rows */
export function argmax(values, rows) {
  const width = values.length / rows;
  return Array.from({ length: rows }, (_, row) => {
    let best = row * width;
    for (let i = best; i < (row + 1) * width; i++) if (values[i] > values[best]) best = i;
    return best - row * width;
  });
}
