//! Requests that use what is not tokens: images, audio, requests with a price of their own.

#![allow(missing_docs)]

use policy::{
    AdmissionRequest, Allowance, Caps, Class, Decision, ModelId, ModelRules, NanoEuro, PlanId, Policy, Prices,
    Priority, ProjectId, ProjectRules, Rules, Settlement, SubjectRules, Time, Units, Usage, UserId,
};

/// €0.04 an image, €0.006 a minute of audio, €0.001 a pass-through request, and a budget of €0.10 a day.
fn rules() -> Rules {
    let prices = Prices {
        image: NanoEuro(40_000_000),
        audio_minute: NanoEuro(6_000_000),
        passthrough_request: NanoEuro(1_000_000),
        ..Prices::default()
    };
    let day = Caps {
        cost: Some(NanoEuro(100_000_000)),
        ..Caps::default()
    };
    let limits = SubjectRules {
        allowance: Allowance {
            day,
            ..Allowance::default()
        },
        ..SubjectRules::default()
    };
    Rules {
        models: vec![ModelRules {
            prices,
            ..ModelRules::default()
        }],
        projects: vec![ProjectRules {
            limits,
            ..ProjectRules::default()
        }],
        ..Rules::default()
    }
}

fn request(units: Units) -> AdmissionRequest {
    AdmissionRequest {
        project: ProjectId(0),
        user: UserId(0),
        key: None,
        plan: PlanId(0),
        model: ModelId(0),
        smaller: None,
        class: Class::Interactive,
        priority: Priority::Normal,
        input_tokens: 0,
        least_input_tokens: 0,
        max_tokens: 1,
        answers: 0,
        units,
        hints: policy::Hints::default(),
    }
}

fn images(images: u64) -> AdmissionRequest {
    request(Units {
        images,
        ..Units::default()
    })
}

#[test]
fn the_worst_case_has_the_price_of_every_unit() {
    let all = Units {
        output_tokens: 448,
        audio_millis: 90_000,
        images: 2,
        passthrough_requests: 1,
    };
    let estimate = request(all).estimate(&rules());
    assert_eq!(estimate.output_tokens, 448);
    // 2 × 0.04 + 1.5 × 0.006 + 0.001
    assert_eq!(estimate.cost, NanoEuro(90_000_000));
}

#[test]
fn images_are_reserved_against_a_budget_and_what_was_not_made_is_given_back() {
    let now = Time::after_epoch(std::time::Duration::from_secs(86_400));
    let mut policy = Policy::new(rules());
    let Decision::Admit(first) = policy.offer(&images(2), now).0 else {
        panic!("0.08 of 0.10 is admitted");
    };
    assert!(
        !matches!(policy.offer(&images(1), now).0, Decision::Admit(_)),
        "0.12 is not"
    );
    let usage = Usage {
        cost: NanoEuro(40_000_000),
        ..Usage::default()
    };
    let settlement = Settlement {
        usage,
        was_forwarded: true,
        has_completed: true,
        was_answered: true,
        ..Settlement::default()
    };
    policy.settle(first.ticket, &settlement, now);
    assert!(
        matches!(policy.offer(&images(1), now).0, Decision::Admit(_)),
        "0.04 was used"
    );
    assert!(
        !matches!(policy.offer(&images(3), now).0, Decision::Admit(_)),
        "0.12 can never pass"
    );
}
