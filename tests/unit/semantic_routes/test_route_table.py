import numpy as np
import pytest

from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable


def test_the_vectors_of_a_route_lie_side_by_side_in_the_order_of_names() -> None:
    routes = [Route("b", "", "x"), Route("a", "", "y")]
    vectors = np.eye(4, dtype=np.float32)
    table = RouteTable.build(routes, vectors, np.array([0, 1, 0, 1]))
    assert [route.name for route in table.routes] == ["a", "b"]
    assert table.starts.tolist() == [0, 2]
    assert table.vectors.tolist() == vectors[[1, 3, 0, 2]].tolist()


def test_an_inactive_route_is_left_out_with_its_vectors() -> None:
    routes = [Route("a", "", "x", active=False), Route("b", "", "y")]
    table = RouteTable.build(routes, np.eye(3, dtype=np.float32), np.array([0, 1, 0]))
    assert [route.name for route in table.routes] == ["b"]
    assert table.vectors.tolist() == [[0, 1, 0]]


def test_a_route_without_a_vector_is_named() -> None:
    routes = [Route("a", "", "x"), Route("b", "", "y")]
    with pytest.raises(ValueError, match="route 'b' has no vector"):
        RouteTable.build(routes, np.eye(1, dtype=np.float32), np.array([0]))


def test_a_table_without_any_vectors_holds_routes_searched_elsewhere() -> None:
    table = RouteTable.build([Route("a", "", "x")], np.zeros((0, 4), np.float32), np.zeros(0, int))
    assert len(table) == 1
    assert table.vectors.shape == (0, 4)


def test_routes_are_replaced_among_the_others_with_their_vectors() -> None:
    routes = [Route("b", "", "x"), Route("a", "", "y"), Route("c", "", "z")]
    vectors = np.eye(5, dtype=np.float32)
    table = RouteTable.build(routes, vectors, np.array([0, 1, 0, 2, 1]))
    others = [Route("d", "", "x"), Route("b", "new", "y")]

    replaced = table.replaced({"b", "c"}, others, -vectors[:3], np.array([1, 0, 1]))

    assert [(r.name, r.description) for r in replaced.routes] == [
        ("a", ""),
        ("b", "new"),
        ("d", ""),
    ]
    assert replaced.starts.tolist() == [0, 2, 4]
    assert replaced.vectors.tolist() == [
        *vectors[[1, 4]].tolist(),
        *(-vectors[[0, 2]]).tolist(),
        *(-vectors[[1]]).tolist(),
    ]
    assert [route.name for route in table.routes] == ["a", "b", "c"]


def test_routes_are_replaced_where_they_are_searched_elsewhere() -> None:
    none, no_owners = np.zeros((0, 4), np.float32), np.zeros(0, int)
    table = RouteTable.build([Route("a", "", "x"), Route("c", "", "x")], none, no_owners)
    replaced = table.replaced({"a"}, [Route("b", "", "x")], none, no_owners)
    assert [route.name for route in replaced.routes] == ["b", "c"]
    assert replaced.searched_elsewhere
