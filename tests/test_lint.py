"""The checks of `make lint` that are the project's own find what they are for."""

import textwrap

import pytest

from tests.lint import limits, words


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("The driver hears of it.", "hears"),
        ("Tell the solver.", "Tell"),
        ("Errors, and those\n    # of the adjoint.", "those\n    # of"),
        ("Two runs give the same.", "the same"),
    ],
)
def test_words_are_found(text, word):
    ((line, found, _),) = words.findings(f"\n{text}")
    assert (line, found) == (2, word)


@pytest.mark.parametrize("text", ["`told` is an option.", "An unknown name.", "The same bits."])
def test_other_words_pass(text):
    assert not list(words.findings(text))


def test_names_of_python_are_not_read(tmp_path):
    (tmp_path / "module.py").write_text('told = f"text {who}"  # why\nwho = 1\n')
    found = words.english(tmp_path / "module.py").replace('"', " ")
    assert "text" in found
    assert "# why" in found
    assert not {"told", "who"} & set(found.split())


def test_function_of_a_line(tmp_path):
    (tmp_path / "module.py").write_text(
        textwrap.dedent("""
            class A:
                @property
                def b(self):
                    def c(): ...
            """)
    )
    names = [limits.function_at(tmp_path / "module.py", line) for line in (2, 4, 5, 1)]
    assert names == ["A", "A.b", "A.b.c", "line 1"]
