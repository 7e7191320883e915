"""A structure with its edges as torch_geometric's Data. Importing this takes the second that torch_geometric takes."""

from typing import Any

from torch_geometric.data import Data  # type: ignore[import-untyped]


class EdgeData(Data):  # type: ignore[misc]
    """What `graph.to_data` returns; batching shifts the indices of atoms and of edges."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key in ("center", "other"):
            return self.num_nodes
        return len(self.center) if key == "reverse" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0
