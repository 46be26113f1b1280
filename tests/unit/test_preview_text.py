"""Lines become paragraphs, and lost blanks come back."""

from __future__ import annotations

import numpy as np
import pytest
from kit.preview.vlm.lines import Line
from kit.preview.vlm.paragraphs import flowing_text, joined
from kit.preview.vlm.spaces import mend, with_blanks, word_gaps

LETTER = 10  # pixels across


def block(*rows: str, left: tuple[int, ...] = (), pitch: tuple[int, ...] = ()) -> list[Line]:
    """One line a row, of equal letters. left: of each row; pitch: from each row to the next, else 30 pixels."""
    lines, top = [], 0
    for number, text in enumerate(rows):
        start = left[number] if left else 0
        lines.append(Line(start, top, start + LETTER * len(text), top + 20, text))
        top += pitch[number] if number < len(pitch) else 30
    return lines


def test_lines_that_fill_the_width_are_one_paragraph():
    assert flowing_text(block("the first line is full", "and runs on into the", "third one.")) == (
        "the first line is full and runs on into the third one."
    )


def test_ragged_lines_are_one_paragraph_when_the_next_word_had_no_room():
    assert flowing_text(block("a ragged right margin", "is short because", "extraordinary words wrap")) == (
        "a ragged right margin is short because extraordinary words wrap"
    )


def test_a_line_that_had_room_for_the_next_word_ends_its_paragraph():
    assert flowing_text(block("Brightwater Office", "Mill Lane 7, second floor")) == (
        "Brightwater Office\nMill Lane 7, second floor"
    )


def test_a_wider_gap_starts_a_paragraph_even_after_a_full_line():
    rows = ("the first paragraph fills", "both of its lines to end.", "the second one has two of", "these lines as well, too.")
    assert flowing_text(block(*rows, pitch=(30, 42, 30))).count("\n") == 1


def test_an_indented_line_after_a_full_stop_starts_a_paragraph():
    text = flowing_text(block("lines of the first one", "which ends right here.", "Another one goes on a", left=(0, 0, 30)))
    assert text.endswith("here.\nAnother one goes on a")


@pytest.mark.parametrize("marks", [("1.", "2."), ("•", "•"), ("a)", "b)"), ("(1)", "(2)")])
def test_list_items_stay_apart_even_when_they_fill_the_width(marks):
    first, second = (f"{mark} open the lid and wait here" for mark in marks)
    assert flowing_text(block(first, second)) == f"{first}\n{second}"


def test_a_number_in_running_text_is_no_list_item():
    assert "\n" not in flowing_text(block("the bakers and the postman of", "12. Street are the only people"))


def test_centred_lines_stay_apart():
    assert flowing_text(block("Ada Example and Lin", "Institute of Open Documents", left=(40, 0))).count("\n") == 1


def test_chinese_lines_are_joined_without_blanks():
    assert (
        flowing_text(block("本馆每周二至周日开放，", "上午九点开门，晚上八点", "闭馆。"))
        == "本馆每周二至周日开放，上午九点开门，晚上八点闭馆。"
    )


def test_a_hyphen_at_the_line_end_goes_only_within_a_word():
    assert joined("recog-", "nition") == "recognition"
    assert joined("Rhine-", "Main") == "Rhine- Main"
    assert joined("12-", "day") == "12- day"


def written(text: str, *, blank: int = 12) -> np.ndarray:
    """A line picture: 2 strokes a letter, 3 pixels between letters, `blank` more for a blank."""
    picture = np.full((40, 20 + len(text) * 13 + blank * text.count(" "), 3), 255, np.uint8)
    x = 10
    for letter in text:
        if letter == " ":
            x += blank
            continue
        picture[8:32, x : x + 4] = 0
        picture[18:22, x : x + 10] = 0
        x += 13
    return picture


def test_gaps_between_words_are_found_whatever_the_recogniser_saw():
    picture = written("full of people")
    assert len(word_gaps(picture, blanks=1)) == len(word_gaps(picture, blanks=0)) == 2
    assert word_gaps(written("people"), blanks=0) == []


def test_lost_blanks_come_back():
    words = {0: "full", 1: "of", 2: "people."}
    read = mend(written("full of people."), "full ofpeople.", lambda pictures: [words[n] for n in range(len(pictures))])
    assert read == "full of people."


def test_a_whole_line_is_not_read_again():
    def never(pictures):
        raise AssertionError("read again")

    assert mend(written("full of people"), "full of people", never) == "full of people"
    assert mend(written("上午 九点"), "上午九点", never) == "上午九点"


def test_only_blanks_are_added_never_letters_changed():
    assert with_blanks("fullofpeople", ["fu1l", "of", "pe0ple"]) == "full of people"
    assert with_blanks("fullofpeople", ["something", "else"]) == "fullofpeople"
    assert with_blanks("full of people", ["full", "of", "people"]) == "full of people"
