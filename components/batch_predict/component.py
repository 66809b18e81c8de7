"""The batch_predict step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def batch_predict(
    model: str,
    project: str,
    location: str,
    source: str,
    destination: str,
    machine_type: str,
    accelerator: str,
    accelerators: int,
    replicas: int,
    service_account: str,
    labels: dict,
    kms_key: str,
    run: str,
) -> str:
    """Score shards with the registered model, by a batch prediction job of Vertex AI.

    Args:
        model: The version: projects/P/locations/L/models/M@V.
        project: Google Cloud project.
        location: Region of the job.
        source: gs:// URIs of TFRecord shards, with commas between them; * stands for anything.
        destination: gs:// prefix; the answers go to a folder of the job's there, as JSON lines.
        machine_type: Of a replica.
        accelerator: Of a replica, by its Vertex name; empty: none.
        accelerators: How many each.
        replicas: Machines.
        service_account: That the prediction server runs as; empty: Vertex AI's own.
        labels: For the bill.
        kms_key: Full name of a key of one's own; empty: Google's.
        run: Id of the pipeline's run, part of the job's name; a job of this run that is at work
            or done is not started again.

    Returns:
        The folder of the answers.
    """
    from components.batch_predict.step import Batch, run_batch_predict
    from trainer.errors import reported

    with reported():
        batch = Batch(
            source=source,
            destination=destination,
            machine_type=machine_type,
            accelerator=accelerator,
            accelerators=accelerators,
            replicas=replicas,
            service_account=service_account,
            labels=labels,
            kms_key=kms_key,
            run=run,
        )
        return run_batch_predict(project, location, model, batch)
