// Data come as scripts, each of which gives its part: a browser refuses to fetch from the file system.
"use strict";

const { h, html, render, Component, useState, useEffect, useRef, useMemo } = Object.assign({}, htmPreact);

const EXPERTLENS = (() => {
  const given = new Map();
  const waiting = new Map();

  function give(name, data) {
    given.set(name, data);
  }

  // A promise of a chunk; it is loaded once.
  function load(name) {
    if (given.has(name)) return Promise.resolve(given.get(name));
    if (!waiting.has(name)) {
      waiting.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => given.has(name) ? resolve(given.get(name)) : reject(new Error(`data/${name}.js gave nothing`));
        script.onerror = () => reject(new Error(`data/${name}.js isn't there`));
        document.head.append(script);
      }));
    }
    return waiting.get(name);
  }

  return { give, load, given: (name) => given.get(name) };
})();

// A chunk in a view: undefined until it is there; name null for none.
function useChunk(name) {
  const [state, setState] = useState({ name: null });
  const now = name === null ? null : EXPERTLENS.given(name);
  useEffect(() => {
    if (name === null || now !== undefined) return undefined;
    let wanted = true;
    EXPERTLENS.load(name).then(
      (data) => wanted && setState({ name, data }),
      (error) => wanted && setState({ name, error }),
    );
    return () => { wanted = false; };
  }, [name]);
  if (now !== undefined && now !== null) return { data: now };
  return state.name === name ? state : {};
}

// Numbers that were packed as base64, little-endian.
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), (letter) => letter.charCodeAt(0));
  const types = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };
  return new types[packed.type](bytes.buffer);
}

// Where the pair (i, j) stands in the upper triangle of a table of n concepts, read by rows.
function trianglePlace(n, i, j) {
  if (i > j) [i, j] = [j, i];
  return i * n - (i * (i + 1)) / 2 + (j - i - 1);
}

// Jaccard overlap and shared experts of two concepts at a level of τ.
function overlapOf(table, shared, level, i, j) {
  const sizes = [table.experts[i][level], table.experts[j][level]];
  const both = i === j ? sizes[0] : shared[trianglePlace(table.concepts.length, i, j)];
  const either = sizes[0] + sizes[1] - both;
  return { both, jaccard: either ? both / either : 0, sizes };
}

// Spearman's correlation, ties by their mean rank.
function spearman(pairs) {
  if (pairs.length < 3) return NaN;
  const ranks = (values) => {
    const order = values.map((value, i) => [value, i]).sort((a, b) => a[0] - b[0]);
    const found = new Array(values.length);
    for (let start = 0; start < order.length;) {
      let stop = start;
      while (stop < order.length && order[stop][0] === order[start][0]) stop++;
      for (let k = start; k < stop; k++) found[order[k][1]] = (start + stop - 1) / 2;
      start = stop;
    }
    return found;
  };
  const [a, b] = [ranks(pairs.map((p) => p[0])), ranks(pairs.map((p) => p[1]))];
  const middle = (pairs.length - 1) / 2;
  let ab = 0, aa = 0, bb = 0;
  a.forEach((rank, i) => {
    ab += (rank - middle) * (b[i] - middle);
    aa += (rank - middle) ** 2;
    bb += (b[i] - middle) ** 2;
  });
  return ab / Math.sqrt(aa * bb);
}
