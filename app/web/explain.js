// The answer of POST /explain -> what sight.js shows.

/** { input, groups } */
export function adapt({ input, attention, attribution }) {
  const overall = [
    { name: "What the answer rests on", map: attribution.map },
    { name: "Where it looked", map: attention.mean },
  ];
  const blocks = attention.blocks.map(({ mean, latents }, index) => {
    const block = `block ${index + 1}`;
    const each = latents.map((map, latent) => {
      return { name: `Where latent ${latent + 1} of ${block} looked`, map };
    });
    return { name: `Block ${index + 1}`, maps: [{ name: `Where ${block} looked`, map: mean }, ...each] };
  });
  return { input, groups: [{ name: "Answer", maps: overall }, ...blocks] };
}
