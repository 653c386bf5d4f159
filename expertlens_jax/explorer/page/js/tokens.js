// Sentences whose tokens are coloured by what a unit says at them.
"use strict";

// An activation from its code, between a unit's lowest and highest.
const activation = (code, [lowest, , highest]) => lowest + (highest - lowest) * (code / 255);

// Orange above the unit's middle, blue below it; weak ones stay pale.
function tint(value, [lowest, middle, highest]) {
  const reach = Math.max(highest - middle, middle - lowest, 1e-12);
  const strength = Math.min(1, Math.abs(value - middle) / reach) ** 1.6;
  return strength < 0.03 ? "transparent" : `rgb(${value > middle ? "var(--above)" : "var(--below)"} / ${(strength * 0.6).toFixed(3)})`;
}

function Tokens({ told, unit, scale }) {
  const codes = told.codes || (told.codes = unpack(told.activations));
  const from = unit * told.tokens.length;
  return html`<span class="tokens">${told.tokens.map((token, i) => {
    const value = activation(codes[from + i], scale);
    return html`<span style=${`background:${tint(value, scale)}`} title=${`${token.trim()}: ${value.toPrecision(3)}`}>${token}</span>`;
  })}</span>`;
}

function Scale({ scale }) {
  const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => scale[0] + share * (scale[2] - scale[0]));
  return html`<span class="scale"><span class="faint">Activation</span> ${steps.map((value) => html`<span style=${`background:${tint(value, scale)}`}>${value.toPrecision(2)}</span>`)}</span>`;
}
