"""What is kept in memory: as much as may be, and the longest unasked goes first."""

from touchstone.io.cache import Memory


def test_what_was_asked_for_longest_ago_is_forgotten_first():
    memory = Memory(100)
    for number in range(10):
        memory.put(str(number), "x" * 10)
    assert memory.get("0") == "x" * 10  # now "1" was asked for longest ago
    memory.put("new", "y" * 10)
    assert memory.get("1") is None
    assert memory.get("0") == "x" * 10
    assert memory.get("new") == "y" * 10


def test_a_text_that_would_push_out_many_others_is_not_kept():
    memory = Memory(100)
    memory.put("small", "x" * 10)
    memory.put("large", "y" * 11)
    assert memory.get("large") is None
    assert memory.get("small") == "x" * 10
