"use strict";
// Makes charts answer to the pointer: a click on a name hides its line, hovering shows the values there.
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector(".scroll > svg");
  const lines = [...svg.querySelectorAll("g[data-series]")].map((group) => ({
    group, name: group.dataset.name, points: JSON.parse(group.dataset.points),
  }));
  for (const button of figure.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const line = lines.find(({ group }) => group.dataset.series === button.dataset.series);
      const hidden = line.group.style.display === "none";
      line.group.style.display = hidden ? "" : "none";
      button.classList.toggle("off", !hidden);
    });
  }
  const hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
  hair.setAttribute("class", "hair");
  const tip = document.createElement("div");
  tip.className = "tip";
  const nearest = (points, x) => points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
  const leave = () => { hair.remove(); tip.remove(); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
    const x = (event.clientX - box.left) / box.width * view.width;
    const shown = lines.filter(({ group, points }) => group.style.display !== "none" && points.length > 0)
      .map(({ name, points }) => ({ name, point: nearest(points, x) }))
      .filter(({ point }) => Math.abs(point[0] - x) < view.width / 20);
    if (shown.length === 0) return leave();
    const at = nearest(shown.map(({ point }) => point), x);
    for (const [key, value] of Object.entries({ x1: at[0], x2: at[0], y1: 26, y2: view.height - 40 })) hair.setAttribute(key, value);
    svg.append(hair);
    tip.textContent = [at[2], ...shown.map(({ name, point }) => `${name}: ${point[3]}`)].join("\n");
    figure.append(tip);
    const left = box.left + at[0] / view.width * box.width - figure.getBoundingClientRect().left;
    const fits = left + tip.offsetWidth + 16 < figure.clientWidth;
    tip.style.left = `${fits ? left + 12 : Math.max(0, left - tip.offsetWidth - 12)}px`;
    tip.style.top = `${event.clientY - figure.getBoundingClientRect().top + 12}px`;
  });
}
