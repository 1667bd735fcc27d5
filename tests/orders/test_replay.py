"""The replay reads a file of real orders and places each of them once."""

import datetime
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from orders.models import Customer, Order, Product
from orders.replay import DATA, BadFile, read_orders

HEADER = "customer,sample_customer,date,units,amount\n"


@pytest.fixture
def file(tmp_path):
    """Return a function that writes lines below the usual header and gives the file's path."""

    def write(*lines, header=HEADER):
        path = tmp_path / "some_orders.csv"
        path.write_text(header + "\n".join(lines))
        return path

    return write


def replay(*arguments):
    """Run the command and return what it says."""
    said = StringIO()
    call_command("replay_orders", "--speed=max", *map(str, arguments), stdout=said)
    return said.getvalue()


class TestTheRealOrders:
    def test_are_all_there_to_the_cent(self):
        orders = read_orders(DATA)
        assert len(orders) == 6919
        assert len({order.customer for order in orders}) == 2357
        assert sum(order.units for order in orders) == 16479
        assert sum(order.amount for order in orders) == Decimal("244091.94")

    def test_come_by_date_and_each_has_a_name_of_its_own(self):
        orders = read_orders(DATA)
        moments = [order.moment for order in orders]
        assert moments == sorted(moments)
        assert moments[0].date() == datetime.date(1997, 1, 1)
        assert moments[-1].date() == datetime.date(1998, 6, 30)
        assert len({order.reference for order in orders}) == 6919

    def test_of_one_day_are_spread_over_it(self, file):
        orders = read_orders(file(*["00004,0001,19970101,2,29.33"] * 4))
        assert [order.moment.hour for order in orders] == [0, 6, 12, 18]


class TestABadFile:
    @pytest.mark.parametrize(
        ("line", "column", "value"),
        [
            ("0 4,1,19970101,2,29.33", "customer", "'0 4'"),
            (",1,19970101,2,29.33", "customer", "''"),
            ("00004,1,19970231,2,29.33", "date", "'19970231'"),
            ("00004,1,1997,2,29.33", "date", "'1997'"),
            ("00004,1,19970101,0,29.33", "units", "'0'"),
            ("00004,1,19970101,41,29.33", "units", "'41'"),
            ("00004,1,19970101,-1,29.33", "units", "'-1'"),
            ("00004,1,19970101,٣,29.33", "units", "'٣'"),
            ("00004,1,19970101,2,-0.01", "amount", "'-0.01'"),
            ("00004,1,19970101,2,29.333", "amount", "'29.333'"),
            ("00004,1,19970101,2,NaN", "amount", "'NaN'"),
            ("00004,1,19970101,2,1e3", "amount", "'1e3'"),
            ("00004,1,19970101,2", "amount", "''"),
        ],
    )
    def test_is_refused_with_line_column_value_and_remedy(self, file, line, column, value):
        path = file("00004,0001,19970101,2,29.33", line)
        with pytest.raises(BadFile) as refusal:
            read_orders(path)
        assert f"line 3: {column} {value} is not" in str(refusal.value)
        assert "Correct or remove the line" in str(refusal.value)

    def test_without_a_column_says_which(self, file):
        with pytest.raises(BadFile, match="has no column units, amount"):
            read_orders(file("00004,19970101", header="customer,date\n"))

    def test_without_orders_is_refused(self, file):
        with pytest.raises(BadFile, match="has no orders"):
            read_orders(file())

    def test_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(BadFile, match="cannot be read: No such file"):
            read_orders(tmp_path / "nowhere.csv")

    def test_that_is_a_folder_is_refused(self, tmp_path):
        with pytest.raises(BadFile, match="cannot be read: Is a directory"):
            read_orders(tmp_path)

    def test_that_is_no_text_is_refused(self, tmp_path):
        path = tmp_path / "picture.csv"
        path.write_bytes(b"\x89PNG\xff\xfe")
        with pytest.raises(BadFile, match="not UTF-8 text"):
            read_orders(path)

    def test_with_an_open_quote_is_refused(self, file):
        with pytest.raises(BadFile, match="after line 1: unexpected end of data"):
            read_orders(file('"00004,0001'))

    def test_with_a_byte_order_mark_is_welcome(self, file):
        path = file("00004,0001,19970101,2,29.33", header="\ufeff" + HEADER)
        assert len(read_orders(path)) == 1

    @pytest.mark.django_db
    def test_leaves_nothing_half_placed(self, file):
        path = file("00004,0001,19970101,2,29.33", "00004,0001,19970101,two,29.33")
        with pytest.raises(CommandError, match="nothing was placed"):
            replay("--file", path)
        assert not Order.objects.exists()
        assert not Customer.objects.exists()


@pytest.mark.django_db
class TestTheCommand:
    def test_places_each_order_with_its_customer(self, file):
        said = replay("--file", file("00004,0001,19970118,2,29.73", "00021,0002,19970101,3,63.34"))
        assert "2 orders placed" in said
        newest, oldest = Order.objects.all()
        assert (oldest.customer.email, oldest.quantity, oldest.amount, oldest.ordered_on) == (
            "customer-00021@cdnow.example",
            3,
            Decimal("63.34"),
            datetime.date(1997, 1, 1),
        )
        assert newest.source_reference == "some_orders:00004-19970118-1"

    def test_goes_on_where_it_stopped_and_places_no_order_twice(self, file):
        path = file(*["00004,0001,19970101,2,29.33"] * 3, "00021,0002,19970102,3,63.34")
        assert "3 orders placed" in replay("--file", path, "--limit=3")
        assert "1 orders to place, 3 are" in replay("--file", path)
        assert "0 orders to place, 4 are" in replay("--file", path)
        assert Order.objects.count() == 4

    def test_chooses_the_same_products_and_cards_each_time(self):
        chosen = []
        for _ in range(2):
            replay("--limit=40", "--chaos")
            orders = Order.objects.order_by("source_reference")
            chosen.append(list(orders.values_list("source_reference", "product__sku", "card")))
            orders.delete()
        assert chosen[0] == chosen[1]

    def test_lets_every_payment_succeed_in_the_end_unless_chaos_is_asked_for(self):
        replay("--limit=200")
        assert set(Order.objects.values_list("card", flat=True)) == {"good", "flaky"}
        assert not Order.objects.filter(product__restock_size=0).exists()

    def test_paces_the_orders_by_their_dates(self, file, monkeypatch):
        waits = []
        monkeypatch.setattr("orders.management.commands.replay_orders.time.sleep", waits.append)
        path = file("00004,0001,19970101,2,29.33", "00004,0001,19970102,2,29.33")
        call_command("replay_orders", f"--file={path}", "--speed=864x", stdout=StringIO())
        # One day, 864 times as fast, is a hundred seconds.
        assert 99 < waits[1] <= 100

    def test_stops_when_another_replay_places_the_same_orders(self, file, monkeypatch):
        path = file(*["00004,0001,19970101,2,29.33"] * 3)
        # The other replay is quicker: it places all orders while this one waits for the second.
        monkeypatch.setattr(
            "orders.management.commands.replay_orders.time.sleep",
            lambda seconds: seconds and replay("--file", path),
        )
        with pytest.raises(CommandError, match="Stopped after 1 orders: another replay"):
            call_command("replay_orders", f"--file={path}", "--speed=1x", stdout=StringIO())
        assert Order.objects.count() == 3

    @pytest.mark.parametrize("speed", ["", "fast", "0x", "-5x", "1000", "1e9x", "nanx", "x"])
    def test_refuses_a_bad_speed_with_the_remedy(self, speed):
        with pytest.raises(CommandError, match=r"is no speed\. Use a number above 0 followed by x"):
            call_command("replay_orders", f"--speed={speed}")

    @pytest.mark.parametrize("limit", ["0", "-1", "many", "1.5"])
    def test_refuses_a_bad_limit(self, limit):
        with pytest.raises(CommandError, match=r"is no number of orders\. Use 1 or more"):
            call_command("replay_orders", f"--limit={limit}")

    def test_says_how_to_stock_an_empty_shop(self, file):
        Product.objects.all()[0].movements.model.objects.all().delete()
        Product.objects.all().delete()
        with pytest.raises(CommandError, match=r"Run `manage\.py migrate`"):
            replay("--limit=1")
