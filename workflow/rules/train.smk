rule train:
    input:
        notebook="notebooks/2_train.ipynb",
        package=package(
            "inference",
            "reliability",
            "stages/structure.py",
            "stages/train.py",
            "figures",
        ),
        data=chunks,
        recipe=recipe,
        audits=audits,
    output:
        checkpoint="results/{run}/checkpoints/trained/manifest.json",
        report="results/{run}/reports/train_report.json",
        tables="results/{run}/reports/train_tables.csv",
        calibrated="results/{run}/reports/train_calibration.csv",
        figure=report(
            "results/{run}/figures/training.png",
            caption="../report/train.rst",
            category="2 train",
            labels={"model": "{run}", "figure": "training"},
        ),
        calibration=report(
            "results/{run}/figures/calibration.png",
            caption="../report/calibration.rst",
            category="2 train",
            labels={"model": "{run}", "figure": "calibration"},
        ),
        structure=report(
            "results/{run}/figures/structure.svg",
            caption="../report/structure.rst",
            category="2 train",
            labels={"model": "{run}", "figure": "structure"},
        ),
        notebook="results/{run}/notebooks/2_train.ipynb",
    log:
        notebook="results/{run}/logs/2_train.ipynb",
        text="results/{run}/logs/2_train.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        model_id=model_of,
        settings=settings("train"),
        files=lambda wildcards: yaml.safe_dump(
            {"data": chunks(wildcards), "audits": audits(wildcards)},
            default_flow_style=True,
            width=float("inf"),
        ).strip(),
    message:
        "{wildcards.run}: train the model"
    shell:
        notebook("-y {params.files:q}")
