from bench.page import compose

ORDER = ("Cost", "Limits", "Scale")


def test_a_run_replaces_its_own_section_alone() -> None:
    page = compose("", {"Cost": "old cost", "Scale": "2,000 models\n\n### Idle\n\nnothing\n"}, order=ORDER)
    again = compose(page, {"Cost": "new cost"}, order=ORDER)
    assert again == page.replace("old cost", "new cost")
    assert "### Idle\n\nnothing\n" in again


def test_sections_stand_in_their_order() -> None:
    page = compose("", {"Scale": "s"}, order=ORDER)
    page = compose(page, {"Limits": "l", "Cost": "c"}, order=ORDER)
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Cost",
        "## Limits",
        "## Scale",
    ]


def test_what_is_no_section_any_more_goes() -> None:
    assert "gone" not in compose("# Benchmarks\n\n## Former\n\ngone\n", {"Cost": "c"}, order=ORDER)


def test_what_was_measured_before_is_kept_word_for_word() -> None:
    page = compose("", {"Cost": "| a | b |\n| --- | --- |\n\nLimits: [x](y)."}, order=ORDER)
    assert compose(page, {}, order=ORDER) == page
