// Tells every gallery of the page which picture is picked.
export default function ({ data }) {
  window.explorerPicked = data.id;
  window.dispatchEvent(new Event("explorer-picked"));
}
