import pytest

from envs.errors import ConfigError
from rlplatform.models.layout import ObservationLayout

NAMES = ("A.return_5", "A.rsi", "BRK.B.return_5", "BRK.B.rsi", "vix", "cash_weight", "weight_A", "weight_BRK.B", "drawdown")


def test_entries_go_to_the_asset_that_their_name_names_and_the_rest_is_shared():
    layout = ObservationLayout(("A", "BRK.B"), NAMES)
    assert layout.asset_entries == ("*.return_5", "*.rsi", "weight_*")
    assert layout.asset_columns == ((0, 1, 6), (2, 3, 7))
    assert layout.shared_entries == ("vix", "cash_weight", "drawdown")
    assert layout.groups == (0, 1, 0, 1, 3, 4, 2, 2, 5)


def test_what_only_one_asset_has_is_shared():
    layout = ObservationLayout(("A", "B"), ("A.return_5", "B.return_5", "A.earnings", "A-B.spread"))
    assert layout.shared_entries == ("A.earnings", "A-B.spread")


def test_layouts_of_other_assets_agree_and_of_other_features_do_not():
    layout = ObservationLayout(("A", "B"), ("A.return_5", "B.return_5", "vix"))
    layout.check_same_entries(ObservationLayout(("C",), ("C.return_5", "vix")))
    with pytest.raises(ConfigError, match=r"entries of each asset differ, first in \*\.return_1\. Other assets are welcome"):
        layout.check_same_entries(ObservationLayout(("C",), ("C.return_1", "vix")))
    with pytest.raises(ConfigError, match=r"entries shared differ, first in vix"):
        layout.check_same_entries(ObservationLayout(("C",), ("C.return_5",)))
