// Filters and sorts the cards of each gallery by their data attributes. Without it all cards stand in their order.
"use strict";
for (const form of document.querySelectorAll("form.controls")) {
  const list = document.getElementById(form.dataset.cards);
  const cards = Array.from(list.children);
  const told = form.querySelector("output");
  const number = (card, name) => (card.dataset[name] ? Number(card.dataset[name]) : NaN);
  const fits = (card, field) => {
    if (field.value === "" || field.name === "sort") return true;
    if (field.type === "number") return number(card, field.dataset.of) >= field.valueAsNumber;
    return card.dataset[field.name] === field.value.slice(1);
  };
  const update = () => {
    const fields = Array.from(form.elements).filter((field) => field.name);
    for (const card of cards) card.hidden = !fields.every((field) => fits(card, field));
    const [way, name] = form.elements.sort ? form.elements.sort.value.split(" ") : ["", ""];
    const sign = way === "down" ? -1 : 1;
    const order = (one, other) => {
      const [a, b] = [number(one, name), number(other, name)];
      return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0;
    };
    list.append(...(way ? cards.slice().sort(order) : cards));
    told.value = `${cards.filter((card) => !card.hidden).length} of ${cards.length} shown`;
  };
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  update();
}
