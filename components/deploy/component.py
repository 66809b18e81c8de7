"""The deploy step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def deploy(
    model: str,
    project: str,
    location: str,
    endpoint: str,
    traffic: int,
    machine_type: str,
    accelerator: str,
    accelerators: int,
    replicas: int,
    most_replicas: int,
    keep: int,
    service_account: str,
    labels: dict,
    kms_key: str,
) -> str:
    """Let an endpoint of Vertex AI answer with the registered model.

    Args:
        model: The version: projects/P/locations/L/models/M@V.
        project: Google Cloud project.
        location: Region of the endpoint.
        endpoint: Its display name; it is made if there is none.
        traffic: Percent of the requests that go to this version; the others share the rest as
            they did.
        machine_type: Of a replica.
        accelerator: Of a replica, by its Vertex name; empty: none.
        accelerators: How many each.
        replicas: That always run, and are paid for.
        most_replicas: That there may be under load.
        keep: Versions without traffic that stay deployed, and are paid for, to roll back to.
        service_account: That the prediction server runs as; empty: Vertex AI's own.
        labels: For the bill.
        kms_key: Full name of a key of one's own; empty: Google's.

    Returns:
        The endpoint's resource name.
    """
    from components.deploy.step import Deployment, run_deploy
    from trainer.errors import reported

    with reported():
        deployment = Deployment(
            traffic=traffic,
            machine_type=machine_type,
            accelerator=accelerator,
            accelerators=accelerators,
            replicas=replicas,
            most_replicas=most_replicas,
            keep=keep,
            service_account=service_account,
            labels=labels,
            kms_key=kms_key,
        )
        return run_deploy(project, location, model, endpoint, deployment)
