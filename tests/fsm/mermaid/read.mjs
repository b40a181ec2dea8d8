// Reads a state diagram from stdin with Mermaid's parser. Prints the labels of its states by id
// and its moves, as they would be drawn. Fails if the diagram has a fault, or a label that
// Mermaid would not draw as plain text.
import { readFileSync } from 'node:fs';
import { JSDOM } from 'jsdom';
import { marked } from 'marked';

const { window } = new JSDOM('');
globalThis.window = window;
globalThis.document = window.document;
const { default: mermaid } = await import('mermaid');
mermaid.initialize({});

// Does what Mermaid does before it draws a label: Markdown first, entities last.
function drawn(label) {
  for (const block of marked.lexer(label)) {
    const parts = block.type === 'paragraph' ? block.tokens : [block];
    const other = parts.find((part) => part.type !== 'text' && part.type !== 'escape');
    if (other) throw new Error(`the label ${JSON.stringify(label)} is Markdown: ${other.type}`);
  }
  const box = document.createElement('textarea');
  box.innerHTML = label.replace(/ﬂ°°/g, '&#').replace(/ﬂ°/g, '&').replace(/¶ß/g, ';');
  return box.value;
}

const { db, type } = await mermaid.mermaidAPI.getDiagramFromText(readFileSync(0, 'utf8'));
const states = [...db.getStates().values()].map((state) => {
  if (state.type !== 'default' || state.note || state.doc || state.classes.length > 0) {
    throw new Error(`${state.id} is more than a state: ${JSON.stringify(state)}`);
  }
  return [state.id, drawn(state.descriptions.join('\n'))];
});
const moves = db.getRelations().map((move) => [move.id1, drawn(move.relationTitle), move.id2]);
const texts = [db.getAccTitle(), db.getAccDescription()];
console.log(JSON.stringify({ type, states: Object.fromEntries(states), moves, texts }));
