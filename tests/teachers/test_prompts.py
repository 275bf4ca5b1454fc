from conftest import released_json
from recon.teachers.prompts import PREFIXES, SUFFIXES, prompts


def test_prompts_are_the_released_ones_in_their_order() -> None:
    released = released_json("clip_prompts_tokens.json")
    assert prompts("night_stand") == released["prompts_night_stand_index_0_59"]
    assert list(PREFIXES) == released["template"]
    assert list(SUFFIXES) == released["template_last"]
