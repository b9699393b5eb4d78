"""vLLM's side of weight updates with planted faults, to see that they are found.

Update ``k`` comes before step ``k + 1``. Two environment variables are the numbers of faulty ones: ``STALE`` of that
which is received and not loaded, ``BROKEN`` of that with an exception while it is received.
"""

from __future__ import annotations

import os
from typing import Any

from ssrl_core.verl.weights import Receiver


class FaultyReceiver(Receiver):
    updates = -1

    def update_weights_from_ipc(self, *args: Any, **kwargs: Any) -> None:
        self.updates += 1
        super().update_weights_from_ipc(*args, **kwargs)

    def _update_weights(self, *args: Any, **kwargs: Any) -> None:
        if self.updates == int(os.environ["BROKEN"]):
            raise ValueError("a planted fault")
        if self.updates != int(os.environ["STALE"]):
            super()._update_weights(*args, **kwargs)
