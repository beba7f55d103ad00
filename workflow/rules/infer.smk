rule infer:
    input:
        unpack(measurement),
        notebook="notebooks/5_infer.ipynb",
        package=package(
            "inference",
            "reliability",
            "stages/checkpoints.py",
            "stages/escalation.py",
            "stages/infer.py",
            "stages/records.py",
            "stages/verdicts.py",
            "figures",
        ),
        checkpoint=checkpoint,
        guardrail=guardrail,
    output:
        report="results/{run}/reports/infer_{name}.json",
        table="results/{run}/reports/infer_{name}.csv",
        figure=report(
            "results/{run}/figures/infer_{name}.png",
            caption="../report/infer.rst",
            category="5 infer",
            labels={"model": "{run}", "measurement": "{name}"},
        ),
        notebook="results/{run}/notebooks/5_infer_{name}.ipynb",
    log:
        notebook="results/{run}/logs/5_infer_{name}.ipynb",
        text="results/{run}/logs/5_infer_{name}.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        model_id=model_of,
        settings=settings("infer"),
        checkpoint=checkpoint_folder,
        data=lambda wildcards: measurement_paths(wildcards)[0],
        meta=lambda wildcards: measurement_paths(wildcards)[1],
        escalate=config["measurement"].get("escalate", False),
    message:
        "{wildcards.run}: infer {params.data}"
    shell:
        notebook(
            "-r checkpoint {params.checkpoint:q} -r data {params.data:q} -r meta {params.meta:q}"
            " -r name {wildcards.name:q} -p escalate {params.escalate}"
        )


rule measurement:
    input:
        f"results/{answering_run(MEASURED)}/notebooks/5_infer_{measurement_name(MEASURED)}.html",
