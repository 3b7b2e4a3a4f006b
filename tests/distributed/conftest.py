from tests.training.conftest import workshop

__all__ = ["workshop"]
