"""Write `python_api.ipynb` from `python_api.py`: one cell for each `# %%`.

python examples/to_notebook.py
"""

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent


def notebook(source: str) -> nbformat.NotebookNode:
    cells = []
    for number, part in enumerate(re.split(r"^# %%", source, flags=re.MULTILINE)[1:]):
        kind, _, text = part.partition("\n")
        text = text.strip("\n")
        if "[markdown]" in kind:
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        make = new_markdown_cell if "[markdown]" in kind else new_code_cell
        cells.append(make(text, id=f"cell-{number}"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=kernel)


if __name__ == "__main__":
    made = notebook((HERE / "python_api.py").read_text())
    nbformat.write(made, HERE / "python_api.ipynb")
