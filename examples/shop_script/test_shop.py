"""Tests of the shop, without pytest: run `python -m unittest` here. What each does is undone."""

import unittest

from shop import Order, Track, buy, dbs
from sqlalchemy import select

from stillroom.testing import TestOptions, TestRun


def one_track(session):
    session.add(Track(name="Low Tide", copies=1))


def setUpModule():
    stock = {"url": "sqlite://", "metadata": "shop:Stock"}
    sales = {"url": "sqlite://", "metadata": "shop:Sales"}
    dbs.configure({"default": "sales", "databases": {"stock": stock, "sales": sales}})
    ShopTest.run_of_tests = unittest.enterModuleContext(TestRun(dbs, TestOptions(seeds={"stock": [one_track]})))


class ShopTest(unittest.TestCase):
    run_of_tests: TestRun

    def setUp(self):
        self.enterContext(self.run_of_tests.isolated())

    def sold_and_left(self):
        with dbs.unit_of_work(read_only=True) as uow:
            return len(uow.sales.scalars(select(Order)).all()), uow.stock.get(Track, "Low Tide").copies

    def test_both_databases_change(self):
        buy("Low Tide")
        self.assertEqual(self.sold_and_left(), (1, 0))

    def test_or_neither(self):
        buy("Low Tide")
        with self.assertRaises(LookupError):
            buy("Low Tide")
        self.assertEqual(self.sold_and_left(), (1, 0))


if __name__ == "__main__":
    unittest.main()
