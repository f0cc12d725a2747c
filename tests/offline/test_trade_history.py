import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from envs.catalog import make_task
from envs.pair_leverage import PairLeverageConfig
from envs.portfolio import PortfolioConfig
from envs.regime import RegimeConfig
from envs.tape import MarketTape
from envs.terms import FinancingConfig
from rlplatform.data import Prices
from rlplatform.offline.errors import DatasetError
from rlplatform.offline.trade_history import check_history, read_history

DAYS = pd.to_datetime(["2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07", "2020-01-08"])
CLOSE = np.array([[10.0, 20.0], [11.0, 20.0], [11.0, 25.0], [12.0, 25.0], [12.0, 30.0]])
PRICES = Prices(dates=DAYS.to_numpy(), symbols=("KO", "PEP"), close=CLOSE)


def read(tmp_path, text, capital=None):
    path = tmp_path / "trades.csv"
    path.write_text(text)
    return read_history(path, PRICES, FinancingConfig(rate_annual=0.0), capital)


def test_weights_are_held_and_drift_on_days_without_a_row(tmp_path):
    history = read(tmp_path, "date,symbol,weight\n2020-01-02,KO,0.5\n2020-01-06,KO,0.2\n2020-01-06,PEP,0.8\n")
    assert (history.first, history.last, history.kind) == (0, 2, "weights")
    # 0.5 · 1.1 of 0.55 + 0.5 on the day between
    assert_allclose(history.weights, [[0.5, 0], [0.55 / 1.05, 0], [0.2, 0.8]])


def test_wide_weights_say_the_same(tmp_path):
    wide = read(tmp_path, "date,KO,PEP,CASH\n2020-01-02,0.5,0,0.5\n2020-01-06,0.2,0.8,0\n")
    long = read(tmp_path, "date,symbol,weight\n2020-01-02,KO,0.5\n2020-01-06,KO,0.2\n2020-01-06,PEP,0.8\n")
    assert_allclose(wide.weights, long.weights)


def test_trades_become_the_weights_of_the_book(tmp_path):
    history = read(tmp_path, "date,symbol,quantity\n2020-01-02,KO,50\n2020-01-03,PEP,10\n2020-01-07,KO,-50\n", capital=1_000)
    # 500 of 1000; then 550 and 200 of 1050; then 550 and 250 of 1100; then KO sold: 250 of 1150
    assert_allclose(history.weights, [[0.5, 0], [550 / 1050, 200 / 1050], [0.5, 250 / 1100], [0, 250 / 1150]])


def test_notional_is_quantity_times_price(tmp_path):
    shares = read(tmp_path, "date,symbol,quantity\n2020-01-02,KO,50\n2020-01-03,PEP,10\n", capital=1_000)
    money = read(tmp_path, "date,symbol,notional\n2020-01-02,KO,500\n2020-01-03,PEP,200\n", capital=1_000)
    assert_allclose(shares.weights, money.weights)


def test_parquet_is_read_as_csv_is(tmp_path):
    table = pd.DataFrame({"date": DAYS[:2], "symbol": ["KO", "PEP"], "weight": [0.5, 0.25]})
    table.to_parquet(tmp_path / "t.parquet")
    history = read_history(tmp_path / "t.parquet", PRICES, FinancingConfig())
    assert_allclose(history.weights, [[0.5, 0], [0, 0.25]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "date,symbol,weight\n2020-01-02,KOO,0.5\n",
            r"'KOO' is neither .* nor a symbol of the prices \(KO, PEP\). Did you mean KO",
        ),
        (
            "date,symbol,weight\n2020-01-02,KO,0.5\n2020-01-04,KO,0.5\n",
            r"row 3 \(date 2020-01-04, symbol KO\) is no day of the prices",
        ),
        ("date,symbol,weight\n2020-01-08,KO,0.5\n", "is the last day of the prices, so its outcome is not known"),
        ("date,symbol,weight\nsoon,KO,0.5\n", r"row 2 \(date soon, symbol KO\) date cannot be read"),
        ("date,symbol,weight\n2020-01-02,KO,half\n", r"row 2 .* weight is no finite number \(1 such row"),
        ("date,symbol,weight\n2020-01-02,KO,0.5\n2020-01-02,KO,0.5\n", "row 3 .* names a symbol twice on one day"),
        ("day,symbol,weight\n2020-01-02,KO,0.5\n", "has no column 'date'; found day, symbol, weight"),
        ("date,weight\n2020-01-02,0.5\n", "has weight but no column 'symbol'"),
        ("date,KO,PEPS\n2020-01-02,0.5,0.5\n", "'PEPS' is neither .* Did you mean PEP"),
        ("date,symbol,quantity\n2020-01-02,KO,50\n", "lists trades .* Give --capital"),
        ("date,symbol,weight\n", "has no rows"),
    ],
)
def test_a_mistake_names_row_and_cure(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read(tmp_path, text)


def test_a_book_worth_nothing_means_that_the_capital_is_wrong(tmp_path):
    with pytest.raises(DatasetError, match=r"with capital 100 the account is worth -.* on 2020-01-06. Give the true capital"):
        read(tmp_path, "date,symbol,quantity\n2020-01-02,PEP,-50\n2020-01-06,KO,1\n", capital=100)
    with pytest.raises(DatasetError, match="does not exist"):
        read_history(tmp_path / "none.csv", PRICES, FinancingConfig())


def task_of(config, assets=2):
    gross = np.hstack([PRICES.gross(), PRICES.gross()])[:, :assets]
    return make_task(config, MarketTape(dates=DAYS.to_numpy(), symbols=("KO", "PEP", "C")[:assets], gross=gross))[0]


def test_weights_beyond_the_caps_are_refused_by_day(tmp_path):
    short = read(tmp_path, "date,symbol,weight\n2020-01-02,KO,0.5\n2020-01-03,KO,-0.5\n")
    with pytest.raises(
        DatasetError, match=r"on 2020-01-03 .* lowest weight -0.5; Portfolio-v0 allows gross 1, .* none below 0"
    ):
        check_history(short, task_of(PortfolioConfig()))
    check_history(short, task_of(PairLeverageConfig()))
    levered = read(tmp_path, "date,symbol,weight\n2020-01-02,KO,1.5\n2020-01-02,PEP,1.0\n")
    with pytest.raises(DatasetError, match=r"on 2020-01-02 Σ\|w\| is 2.5.*PairLeverage-v0 allows gross 2"):
        check_history(levered, task_of(PairLeverageConfig()))


def test_weights_that_are_no_allocation_are_refused_by_name(tmp_path):
    history = read(tmp_path, "date,symbol,weight\n2020-01-02,KO,1.0\n2020-01-03,KO,0.3\n")
    wider = type(history)(**{**vars(history), "weights": np.hstack([history.weights, np.zeros((2, 1))])})
    with pytest.raises(
        DatasetError, match=r"on 2020-01-03 the weights \[0.3, 0.0, 0.0\] are none of the sixteen .* RISK_OFF_75"
    ):
        check_history(wider, task_of(RegimeConfig(), 3))
