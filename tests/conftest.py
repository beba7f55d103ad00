"""The order of the tests."""


def pytest_collection_modifyitems(items):
    """The longest file first, so that others run beside it, not after it."""
    items.sort(key=lambda item: item.path.name != "test_workflow.py")
