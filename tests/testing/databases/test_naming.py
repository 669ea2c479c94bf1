"""
The names of test databases and templates.
"""

from __future__ import annotations

import pytest

from stillroom.testing.naming import (
    base_name,
    clone_name,
    is_test_name,
    says_production,
    slot_name,
    template_name,
)


@pytest.mark.parametrize(
    "name", ["test", "shop_test", "test-shop", "shop.test.db", "SHOP_TEST", "e2e", "shop ci", "my_tests", "x_testing"]
)
def test_a_whole_word_tells_a_test_database(name: str) -> None:
    assert is_test_name(name)


@pytest.mark.parametrize(
    "name", ["latest", "contest", "social", "testimony", "attest", "shop", "", "testé", "detest2e"]
)
def test_a_part_of_a_word_does_not(name: str) -> None:
    assert not is_test_name(name)


@pytest.mark.parametrize("text", ["production", "PROD", "eu-prod", "shop.settings.production", "live", "pre-prod"])
def test_words_for_production_are_found(text: str) -> None:
    assert says_production(text)


@pytest.mark.parametrize("text", ["non-prod", "not_production", "alive", "product", "reproduction", "test", ""])
def test_words_that_only_look_like_them_are_not(text: str) -> None:
    assert not says_production(text)


def test_a_worker_and_a_slot_end_the_name() -> None:
    assert slot_name("shop_test", "gw0", 2, 63) == "shop_test_gw0_2"
    assert slot_name("shop_test", "", 1, 63) == "shop_test_1"


def test_a_prefix_takes_the_place_of_the_database_and_keeps_databases_apart() -> None:
    assert base_name("audit", "mine_test", "shop_test") == "mine_test_audit"


def test_a_name_that_was_allowed_by_hand_becomes_recognisable() -> None:
    assert base_name("main", None, "scratch") == "scratch_test"
    assert base_name("main", "mine", "shop_test") == "mine_main_test"


@pytest.mark.parametrize("limit", [63, 64, 120])
@pytest.mark.parametrize("name", ["x" * 200 + "_test", "test_" + "é" * 100, "ab_test"])
def test_names_fit_stay_recognisable_and_differ(name: str, limit: int) -> None:
    slots = [slot_name(name, worker, slot, limit) for worker in ("gw0", "gw1") for slot in (1, 2)]
    clones = [clone_name(slots[0], label, limit) for label in ("one", "two", "three" * 40, "three" * 40 + "x")]
    found = [*slots, *clones, template_name(name, "0" * 64, limit), template_name(name, "1" * 64, limit)]
    assert len(set(found)) == len(found)
    assert all(len(each.encode()) <= limit for each in found)
    assert all(map(is_test_name, found))


def test_a_label_of_any_text_makes_a_plain_name() -> None:
    assert clone_name("shop_test_1", "tests/test_a.py::test_b[x-1]", 63) == "shop_test_1_tests_test_a_py_test_b_x_1"
    assert clone_name("shop_test_1", "///", 63) == "shop_test_1_clone"
