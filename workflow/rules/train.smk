rule train:
    input:
        notebook="notebooks/2_train.ipynb",
        package=PACKAGE,
        chunks=chunks,
        audits=audits,
    output:
        checkpoint=expand(
            "results/{{model_id}}/checkpoints/trained/{name}", name=CHECKPOINT_FILES
        ),
        report="results/{model_id}/reports/train_report.json",
        figure=report(
            "results/{model_id}/figures/training.png",
            caption="../report/train.rst",
            category="2 train",
            labels={"model": "{model_id}", "figure": "training"},
        ),
        calibration=report(
            "results/{model_id}/figures/calibration.png",
            caption="../report/calibration.rst",
            category="2 train",
            labels={"model": "{model_id}", "figure": "calibration"},
        ),
        notebook="results/{model_id}/notebooks/2_train.ipynb",
    log:
        notebook="results/{model_id}/logs/2_train.ipynb",
        text="results/{model_id}/logs/2_train.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        settings=lambda wildcards: settings(
            "train",
            n_points=config["simulate"]["n_points"],
            chunks=chunks(wildcards),
            audits=audits(wildcards),
        ),
        folder=checkpoint_folder,
    message:
        "{wildcards.model_id}: train the two networks"
    shell:
        notebook(
            "-r checkpoint_folder {params.folder:q}"
            " -r report_file {output.report:q} -r figure_file {output.figure:q}"
            " -r calibration_file {output.calibration:q}"
        )
