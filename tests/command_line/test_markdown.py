from lit_t6.command_line.markdown import aligned


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned([["cell", "mean"], ["a", "1.05"], ["longer", "10"]], right={1}) == [
        "| cell   | mean |",
        "|--------|-----:|",
        "| a      | 1.05 |",
        "| longer |   10 |",
    ]


def test_wide_letters_take_two_columns():
    """As in a terminal, where the bars stand below each other then."""
    assert aligned([["cell", "値"], ["低い", "1"], ["é", "２"]], right={1}) == [
        "| cell | 値 |",
        "|------|---:|",
        "| 低い |  1 |",
        "| é    | ２ |",
    ]
