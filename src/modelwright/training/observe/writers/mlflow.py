"""MLflow. A database in the run's own directory unless ``MLFLOW_TRACKING_URI`` names a server.

``mlflow ui --backend-store-uri sqlite:///RUN/mlflow/mlflow.db`` shows the local one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from modelwright.training.observe.writers import PROJECT, Place, numbers

library = "mlflow"
# Nothing is sent that was not asked for: the library counts its users unless told not to.
environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
TAG = "modelwright.stage"  # finds the tracker's run again when a training is resumed


class Writer:
    """One run of the tracker a stage, through its client: no active run, no global state."""

    def __init__(self, place: Place) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415 - optional, and slow to import
        from mlflow.entities import Metric  # noqa: PLC0415

        self.metric = Metric
        server = os.environ.get("MLFLOW_TRACKING_URI")
        folder = place.run.resolve() / "mlflow"
        if not server:
            folder.mkdir(exist_ok=True)
        self.client = MlflowClient(tracking_uri=server or f"sqlite:///{folder / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self.client.get_experiment_by_name(name)
        artifacts = None if server else (folder / "artifacts").as_uri()
        experiment = (
            known.experiment_id if known else self.client.create_experiment(name, artifacts)
        )
        before = self.client.search_runs([experiment], f"tags.`{TAG}` = '{place.key}'")
        run = (
            before[0]
            if before
            else self.client.create_run(experiment, run_name=place.title, tags={TAG: place.key})
        )
        self.id = run.info.run_id
        self.client.update_run(self.id, status="RUNNING")

    def write(self, values: Mapping[str, Any]) -> None:
        """Log the record's numbers at its step, in one request."""
        now, step = int(time.time() * 1000), values["step"]
        metrics = [self.metric(name, number, now, step) for name, number in numbers(values)]
        self.client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.id)
